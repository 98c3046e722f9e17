"""A fixed program whose seconds say how fast this machine is at what smoke runs do: importing JAX, tracing and compiling."""

import time

started = time.perf_counter()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402


def loss(kernels, images, depth):
    for kernel in kernels:
        images = jax.nn.relu(jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
    return jnp.mean(images**depth)


for layers in (2, 3, 4, 5, 6):
    kernels = [jnp.ones((3, 3, 8, 8)) * 0.01 for _ in range(layers)]
    step = jax.jit(jax.value_and_grad(loss), static_argnums=2)
    jax.block_until_ready(step(kernels, jnp.ones((4, 16, 16, 8)), layers))
print(time.perf_counter() - started)
