"""A dense layer with rank-one factors for each member."""

import flax.linen as nn
import jax
import jax.numpy as jnp

FACTOR_INITS = {
    "signs": lambda key, shape: jnp.where(jax.random.bernoulli(key, 0.5, shape), 1.0, -1.0),
    "normal": lambda key, shape: 1.0 + 0.5 * jax.random.normal(key, shape),
    "ones": lambda key, shape: jnp.ones(shape),
}


class BatchEnsembleDense(nn.Module):
    """y[b, m] = ((x[b, m] o r[m]) W) o s[m] + bias[m] for inputs [B, M, d]; parameters kernel, r, s, bias.

    References:
      Wen, Tran & Ba 2020, equation 5.
    """

    features: int
    num_members: int
    factor_init: str = "signs"
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        if self.factor_init not in FACTOR_INITS:
            raise ValueError(f"factor_init must be one of {', '.join(FACTOR_INITS)}, got {self.factor_init!r}")
        init = FACTOR_INITS[self.factor_init]
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        r = self.param("r", init, (self.num_members, x.shape[-1]))
        s = self.param("s", init, (self.num_members, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.num_members, self.features))
        return ((x * r[None]) @ kernel) * s[None] + bias[None]


def merge(layer: dict, averaging: str) -> dict:
    """One dense layer {"kernel", "bias"} from the members': latent BatchEnsemble.

    Args:
      layer: parameters of a `BatchEnsembleDense`.
      averaging: "mask": W o mean_m r_m s_m^T; "factors": W o (mean r)(mean s)^T. They differ by the covariance of r and s.

    Raises:
      ValueError: an unknown averaging.

    References:
      Nam et al. 2022, "Improving Ensemble Distillation with Weight Averaging and Diversifying Perturbation"; specification 6.

    Examples:
      >>> layer = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros((2, 1)), "r": jnp.array([[1.0], [3.0]]), "s": jnp.array([[1.0], [3.0]])}
      >>> float(merge(layer, "mask")["kernel"][0, 0]), float(merge(layer, "factors")["kernel"][0, 0])
      (5.0, 4.0)
    """
    r, s = layer["r"], layer["s"]
    masks = {"mask": lambda: r.T @ s / r.shape[0], "factors": lambda: jnp.outer(r.mean(0), s.mean(0))}
    if averaging not in masks:
        raise ValueError(f"averaging must be one of {', '.join(masks)}, got {averaging!r}")
    return {"kernel": layer["kernel"] * masks[averaging](), "bias": layer["bias"].mean(0)}
