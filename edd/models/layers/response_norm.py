"""Local response normalisation over neighbouring channels."""

import jax.numpy as jnp


def local_response_norm(x, *, radius: int = 4, bias: float = 1.0, alpha: float = 0.001 / 9, beta: float = 0.75):
    """x_c / (bias + alpha sum of x_j^2 over |j - c| <= radius)^beta along the last axis; channels beyond the ends count as 0.

    The defaults are those of TensorFlow's CIFAR-10 tutorial: nine channels, alpha 0.001 / 9 (PyTorch's `size=9, alpha=0.001`).

    Args:
      x: activations [*B, C].
      radius: >= 0.
      bias: > 0.
      alpha, beta: >= 0.

    Raises:
      ValueError: a value out of range.

    References:
      Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3.

    Examples:
      >>> float(local_response_norm(jnp.array([3.0]), alpha=1.0, beta=1.0).round(3)[0])  # 3 / (1 + 9)
      0.3
    """
    if radius < 0 or not bias > 0 or alpha < 0 or beta < 0:
        raise ValueError(f"radius, alpha and beta must be >= 0 and bias above 0, got {radius=}, {alpha=}, {beta=}, {bias=}")
    squares = jnp.pad(jnp.square(x), ((0, 0),) * (x.ndim - 1) + ((radius, radius),))
    near = sum(squares[..., shift : shift + x.shape[-1]] for shift in range(2 * radius + 1))
    return x * (bias + alpha * near) ** -beta
