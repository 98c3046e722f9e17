"""Dense and convolution layers with rank-one factors for each member, and how they become plain layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from edd.models.base import Outputs

FACTOR_INITS = {
    "signs": lambda key, shape: jnp.where(jax.random.bernoulli(key, 0.5, shape), 1.0, -1.0),
    "normal": lambda key, shape: 1.0 + 0.5 * jax.random.normal(key, shape),
    "ones": lambda key, shape: jnp.ones(shape),
}


class BatchEnsembleDense(nn.Module):
    """y[b, m] = ((x[b, m] o r[m]) W) o s[m] + bias[m] for inputs [B, M, ..., d]; parameters kernel, r, s, bias.

    References:
      Wen, Tran & Ba 2020, equation 5.
    """

    features: int
    num_members: int
    factor_init: str = "signs"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        init = _factors(self.factor_init)
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        r = self.param("r", init, (self.num_members, x.shape[-1]))
        s = self.param("s", init, (self.num_members, self.features))
        each = lambda rows: rows.reshape(1, self.num_members, *[1] * (x.ndim - 3), -1)  # noqa: E731
        y = ((x * each(r)) @ kernel) * each(s)
        return y + each(self.param("bias", nn.initializers.zeros, (self.num_members, self.features))) if self.use_bias else y


class BatchEnsembleConv(nn.Module):
    """The convolution of `BatchEnsembleDense` over rows [B * M, H, W, C], the member fastest.

    References:
      Wen, Tran & Ba 2020, equation 5, with the factors over input and output channels.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int
    num_members: int
    factor_init: str = "signs"
    use_bias: bool = True
    padding: str | int = "SAME"
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        init = _factors(self.factor_init)
        r = self.param("r", init, (self.num_members, x.shape[-1]))
        s = self.param("s", init, (self.num_members, self.features))
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        x, kernel = nn.dtypes.promote_dtype(_times(x, r), kernel, dtype=self.dtype)
        strides, layout = (self.strides, self.strides), ("NHWC", "HWIO", "NHWC")
        padding = self.padding if isinstance(self.padding, str) else [(self.padding, self.padding)] * 2
        y = _times(jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout), s)
        if not self.use_bias:
            return y
        return _members(y, self.num_members, self.param("bias", nn.initializers.zeros, (self.num_members, self.features)), jnp.add)


def dense(features: int, num_members: int = 0, factor_init: str = "signs", *, use_bias: bool = True, name: str | None = None, **options):
    """A dense layer over rows [B, ..., d], or with members over rows [B * M, ..., d], the member fastest."""
    if not num_members:
        return nn.Dense(features, use_bias=use_bias, name=name, **options)
    layer = BatchEnsembleDense(features, num_members, factor_init, use_bias, options["kernel_init"], name=name)
    return lambda x: layer(x.reshape(-1, num_members, *x.shape[1:])).reshape(*x.shape[:-1], features)


def conv(features: int, kernel: int, strides: int, num_members: int = 0, factor_init: str = "signs", *, name: str | None = None, **options):
    """A padded square convolution over [B, H, W, C], or with members over [B * M, H, W, C]."""
    if not num_members:
        return nn.Conv(features, (kernel, kernel), strides, name=name, **options)
    return BatchEnsembleConv(features, (kernel, kernel), strides, num_members, factor_init, name=name, **options)


def tile(x, num_members: int):
    """Rows [B, ...] -> [B * M, ...], the member fastest; as they are without members."""
    return jnp.repeat(x, num_members, axis=0) if num_members else x


def untile(outputs: Outputs, num_members: int) -> Outputs:
    """Outputs of tiled rows as those of the batch: logits [B, M * K] and penultimate [B, M * d], members first."""
    if not num_members:
        return outputs
    together = lambda leaf: leaf.reshape(leaf.shape[0] // num_members, -1)  # noqa: E731
    return Outputs(together(outputs.logits), together(outputs.penultimate))


def check(num_classes: int, num_members: int, factor_init: str, dropout: float = 0.0) -> None:
    """ValueError for options of a network with members that do not fit each other."""
    _factors(factor_init)
    if num_members < 0 or (num_members and num_classes % num_members):
        raise ValueError(f"num_classes must be a multiple of num_members {num_members}, got {num_classes}")
    if num_members and dropout:
        raise ValueError(f"dropout must be 0 in a network with members, got {dropout}")


def merged(variables: dict, averaging: str) -> dict:
    """A network's variables with every layer that has factors merged into the plain layer of the same name."""

    def walk(tree):
        if not isinstance(tree, dict):
            return tree
        return merge(tree, averaging) if {"kernel", "r", "s"} <= set(tree) else {name: walk(each) for name, each in tree.items()}

    return {**variables, "params": walk(variables["params"])}


def _factors(name: str):
    if name not in FACTOR_INITS:
        raise ValueError(f"factor_init must be one of {', '.join(FACTOR_INITS)}, got {name!r}")
    return FACTOR_INITS[name]


def _times(x, factors):
    return _members(x, factors.shape[0], factors, jnp.multiply)


def _members(x, num_members: int, rows, combine):
    """`combine` of each member's rows x [B * M, ..., C] with its row [C]."""
    shape = (1, num_members, *[1] * (x.ndim - 2), x.shape[-1])
    each = x.reshape(-1, num_members, *x.shape[1:])
    return combine(each, rows.reshape(shape).astype(x.dtype)).reshape(x.shape)


def merge(layer: dict, averaging: str) -> dict:
    """One plain layer {"kernel", "bias"} from the members': latent BatchEnsemble.

    Args:
      layer: parameters of a `BatchEnsembleDense` or `BatchEnsembleConv`.
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
    mask = masks[averaging]()
    kernel = layer["kernel"] * mask.reshape(*[1] * (layer["kernel"].ndim - 2), *mask.shape)
    return {"kernel": kernel, "bias": layer["bias"].mean(0)} if "bias" in layer else {"kernel": kernel}
