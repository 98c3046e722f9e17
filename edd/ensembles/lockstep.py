"""`vmap` with its convolutions unrolled: what a convolutional ensemble needs on CPU.

A vmapped convolution with one kernel per member is a grouped convolution, which XLA runs slowly on CPU; a whole program
unrolled over members compiles M copies of everything and repeats every collective M times. Here the members advance together:
one program, one all-reduce for all of them, and only the convolutions are written out member by member.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend import core

from edd.typing import PyTree

CONVOLUTION = "conv_general_dilated"
INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint")


def lockstep(fn: Callable) -> Callable:
    """`jax.vmap(fn)` over axis 0 of every argument and result, its convolutions unrolled over that axis.

    `fn` may contain its own gradients (they are part of the traced program); the result itself must not be differentiated with
    respect to its arguments. Convolutions inside loops and conditionals are left to `vmap`: correct, but grouped.

    Cost: the convolutions of M members one after the other, a copy of each of their results, and the rest batched.
    """

    def one(*args: PyTree) -> PyTree:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(closed, jax.tree.leaves(args)))

    return jax.vmap(one)


def _evaluate(closed: core.ClosedJaxpr, args: list) -> list:
    """The program's results, convolutions through `_unrolled`, everything between two convolutions as it is."""
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.constvars, closed.consts)) | dict(zip(jaxpr.invars, args))
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else env[atom]  # noqa: E731
    plain: list = []

    def flush():
        if plain:
            env.update(_run(jaxpr, plain, env))
            plain.clear()

    for equation in jaxpr.eqns:
        inner = _inner(equation)
        if equation.primitive.name == CONVOLUTION:
            flush()
            env[equation.outvars[0]] = _unrolled(equation)(*map(read, equation.invars))
        elif inner is not None and _convolves(inner):
            flush()
            env.update(zip(equation.outvars, _evaluate(inner, [read(atom) for atom in equation.invars])))
        else:
            plain.append(equation)
    flush()
    return [read(atom) for atom in jaxpr.outvars]


def _run(jaxpr: core.Jaxpr, equations: list, env: dict) -> dict:
    """The variables that a run of equations defines, evaluated as one program."""
    made = [variable for equation in equations for variable in equation.outvars]
    known = set(made)
    needed = {atom: None for equation in equations for atom in equation.invars if not isinstance(atom, core.Literal) and atom not in known}
    names = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    part = jaxpr.replace(constvars=[], invars=list(needed), outvars=made, eqns=list(equations), debug_info=names)
    return dict(zip(made, core.jaxpr_as_fun(core.ClosedJaxpr(part, ()))(*(env[atom] for atom in needed))))


def _unrolled(equation) -> Callable:
    def plain(lhs, rhs):
        return equation.primitive.bind(lhs, rhs, **equation.params)

    convolution = custom_vmap(plain)

    @convolution.def_vmap
    def rule(size, batched, lhs, rhs):
        members = [plain(lhs[m] if batched[0] else lhs, rhs[m] if batched[1] else rhs) for m in range(size)]
        return jnp.stack(members), True

    return convolution


def _inner(equation) -> core.ClosedJaxpr | None:
    """The program inside an equation that merely calls it."""
    if equation.primitive.name not in INLINED:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            body = equation.params[name]
            return body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())
    return None


def _convolves(closed: core.ClosedJaxpr) -> bool:
    for equation in closed.jaxpr.eqns:
        inner = _inner(equation)
        if equation.primitive.name == CONVOLUTION or (inner is not None and _convolves(inner)):
            return True
    return False
