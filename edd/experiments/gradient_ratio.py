"""First-order gradient analysis: does a loss pull on the most probable class or on the tail of improbable ones?

For one example whose target gives class 1 the probability p1 and shares the rest evenly,

    rho = |dL/dz_1| / sum_{k >= 2} |dL/dz_k|,

over the number of classes, for EnD2's negative log-likelihood and the two directions of the proxy's KL, at three states of the student.
A rho that falls like 1 / K means that the tail drowns the head, which is why EnD2 fails to train on many classes.
"""

import csv
import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from edd.experiments import record
from edd.losses import distribution, proxy
from edd.math import special
from edd.typing import Array

LOSSES = ("nll", "forward_kl", "reverse_kl_paper", "reverse_kl_authors")
STATES = ("init", "near", "misaligned")
STYLES = {"nll": "-", "forward_kl": ":", "reverse_kl_paper": "-", "reverse_kl_authors": "--"}  # curves may coincide
LABELS = {
    "nll": "EnD2 negative log-likelihood (offset 0)",
    "forward_kl": "forward KL to the proxy (offset 1)",
    "reverse_kl_paper": "reverse KL to the proxy (offset 1)",
    "reverse_kl_authors": "reverse KL, the authors' divisor (offset 1)",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to compute; every field but `name` is a sequence or a number of plain data."""

    name: str = "gradient_ratio"
    num_classes: Sequence[int] = (3, 6, 10, 20, 30, 100, 300, 1000, 3000, 10000, 40000)
    head_probability: float = 0.9
    precision_per_class: Sequence[float] = (1.0, 100.0)
    states: Sequence[str] = STATES
    losses: Sequence[str] = LOSSES

    def __post_init__(self):
        for field, known in (("states", STATES), ("losses", LOSSES)):
            unknown = [value for value in getattr(self, field) if value not in known]
            if unknown or not getattr(self, field):
                raise ValueError(f"{field} must be one or more of {known}, got {tuple(getattr(self, field))}")
        if not self.num_classes or min(self.num_classes) < 3:
            raise ValueError(f"num_classes must all be at least 3, got {tuple(self.num_classes)}")
        if not 0.0 < self.head_probability < 1.0:
            raise ValueError(f"head_probability must lie in (0, 1), got {self.head_probability}")
        if not self.precision_per_class or min(self.precision_per_class) <= 0:
            raise ValueError(f"precision_per_class must all be positive, got {tuple(self.precision_per_class)}")


def target(num_classes: int, head_probability: float, precision: float) -> proxy.ProxyTarget:
    """The example's proxy target: (p1, (1 - p1) / (K - 1), ...) with the given precision."""
    tail = math.log1p(-head_probability) - math.log(num_classes - 1)
    log_probs = jnp.full(num_classes, tail).at[0].set(math.log(head_probability))
    return proxy.ProxyTarget(log_probs, jnp.asarray(precision, log_probs.dtype))


def student(state: str, target: proxy.ProxyTarget) -> Array:
    """Logits [K] of a student: "init" z = 0, "near" 0.1 above the optimum ln(precision * mean), "misaligned" the optimum with its
    first two classes swapped."""
    optimum = jnp.log(target.precision) + target.log_mean_probs
    if state == "init":
        return jnp.zeros_like(optimum)
    if state == "near":
        return optimum + 0.1
    return optimum.at[:2].set(optimum[1::-1])


def loss_value(loss: str, logits: Array, target: proxy.ProxyTarget) -> Array:
    """One of `LOSSES`; the negative log-likelihood sees infinitely many members drawn from the proxy Dirichlet."""
    if loss == "nll":
        precision = jnp.broadcast_to(target.precision[..., None], logits.shape)
        mean_log_probs = special.digamma_difference(precision * jnp.exp(target.log_mean_probs), precision)
        return distribution.end2_from_mean_log_probs(logits, mean_log_probs)
    if loss == "forward_kl":
        return proxy.forward_kl(logits, target)
    return proxy.reverse_kl(logits, target, prior=loss.removeprefix("reverse_kl_"))


def rho(gradient: Array) -> Array:
    """|g_1| / sum_{k >= 2} |g_k| over the last axis.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(rho(jnp.array([-3.0, 1.0, 1.0])))
      1.5
    """
    size = jnp.abs(gradient)
    return size[..., 0] / jnp.sum(size[..., 1:], -1)


def gradient_ratios(settings: Settings) -> list[dict]:
    """rho of every loss, state, precision per class c (precision = c K) and number of classes.

    Returns:
      One dict per combination with keys loss, state, precision_per_class, num_classes and rho.

    References:
      Ryabinin, Malinin & Gales 2021, "Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets", section 3.

    Examples:
      >>> settings = Settings(num_classes=(10,), precision_per_class=(100.0,), states=("init",), losses=("reverse_kl_paper",))
      >>> round(gradient_ratios(settings)[0]["rho"], 2)
      1.33
    """
    cases = [(c, state) for c in settings.precision_per_class for state in settings.states]
    rows = []
    with jax.enable_x64(True):  # the likelihood's head gradient is a difference of inputs that float32 cannot even hold
        for num_classes in settings.num_classes:
            targets = [target(num_classes, settings.head_probability, c * num_classes) for c, _ in cases]
            logits = jnp.stack([student(state, goal) for (_, state), goal in zip(cases, targets)])
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *targets)
            for loss, values in jax.device_get(_ratios(logits, stacked, tuple(settings.losses))).items():
                for (c, state), value in zip(cases, values):
                    row = {"loss": loss, "state": state, "precision_per_class": c, "num_classes": num_classes, "rho": float(value)}
                    rows.append(row)
    return rows


@functools.partial(jax.jit, static_argnums=2)
def _ratios(logits: Array, targets: proxy.ProxyTarget, losses: tuple[str, ...]) -> dict[str, Array]:
    def gradient(name):
        return jax.grad(lambda logits: jnp.sum(loss_value(name, logits, targets)))(logits)

    return {name: rho(gradient(name)) for name in losses}


def figure(rows: list[dict], path: pathlib.Path) -> None:
    """One panel per state and precision: rho over the number of classes, both logarithmic."""
    from matplotlib.figure import Figure

    states = list(dict.fromkeys(row["state"] for row in rows))
    precisions = list(dict.fromkeys(row["precision_per_class"] for row in rows))
    drawing = Figure(figsize=(4 * len(states), 3.2 * len(precisions)), layout="constrained")
    axes = drawing.subplots(len(precisions), len(states), sharex=True, sharey="row", squeeze=False)
    for line, c in enumerate(precisions):
        for column, state in enumerate(states):
            axis = axes[line, column]
            for loss in (name for name in LOSSES if any(row["loss"] == name for row in rows)):
                points = [
                    (row["num_classes"], row["rho"])
                    for row in rows
                    if (row["loss"], row["state"], row["precision_per_class"]) == (loss, state, c)
                ]
                axis.loglog(*np.array(points).T, linestyle=STYLES[loss], marker=".", label=LABELS[loss])
            axis.set_title(f"{state}, precision {c:g} K")
            axis.set_xlabel("classes K")
            axis.grid(alpha=0.3)
        axes[line, 0].set_ylabel("rho, head / tail gradient")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=2)
    drawing.savefig(path, dpi=150)


def run(settings: Settings | dict, workdir: str | pathlib.Path, *, data_dir: str | None = None, progress: bool = True) -> dict:
    """Writes `run.json`, `gradient_ratio.csv` and `figures/gradient_ratio.png` into `workdir`.

    Args:
      settings: `Settings`, or a dict of its fields (a config); unknown keys are refused.
      workdir: created if missing.
      data_dir: unused, there is no data set.
      progress: print where the CSV is.

    Returns:
      {"rows": the rows of the CSV}.

    Raises:
      ValueError: unknown key, loss or state, a value out of range, or a directory that holds another run.
    """
    del data_dir
    if not isinstance(settings, Settings):
        known = [field.name for field in dataclasses.fields(Settings)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"unknown keys {unknown} in the gradient-ratio config; known: {known}")
        settings = Settings(**settings)
    workdir = pathlib.Path(workdir)
    record.open_run(workdir, dataclasses.asdict(settings))
    (workdir / "figures").mkdir(exist_ok=True)
    rows = gradient_ratios(settings)
    with open(workdir / "gradient_ratio.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figure(rows, workdir / "figures" / "gradient_ratio.png")
    if progress:
        print(f"ratios: {workdir / 'gradient_ratio.csv'}, figure: {workdir / 'figures' / 'gradient_ratio.png'}")
    return {"rows": rows}
