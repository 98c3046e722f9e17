"""A small variational autoencoder of images with values in [0, 1], for making new images between given ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from edd.models.base import OUTPUT_LAYER, Model, Outputs
from edd.models.layers import linen
from edd.typing import Array, Float, PyTree


class Network(nn.Module):
    """The Linen module behind `make`."""

    num_pixels: int
    latent_dim: int
    hidden: int

    def setup(self):
        init = nn.initializers.he_normal()
        self.encoder = nn.Dense(self.hidden, kernel_init=init)
        self.moments = nn.Dense(2 * self.latent_dim)
        self.decoder = nn.Dense(self.hidden, kernel_init=init)
        self.output = nn.Dense(self.num_pixels, name=OUTPUT_LAYER)

    def __call__(self, x, *, train: bool, keys) -> Outputs:
        moments = self.moments(nn.relu(self.encoder(x.reshape(x.shape[0], -1))))
        latents, log_variance = jnp.split(moments, 2, -1)
        if train and keys is not None:
            noise = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(keys)
            latents = latents + jnp.exp(0.5 * log_variance) * noise
        return Outputs(self.decode(latents), moments)

    def decode(self, latents):
        return self.output(nn.relu(self.decoder(latents)))


def make(num_pixels: int, *, latent_dim: int = 8, hidden: int = 256, axis_name: str | None = None) -> Model:
    """An autoencoder of flattened images: `Outputs.logits` are the pixels' Bernoulli logits, `penultimate` the latent's moments.

    In training passes with keys the latent is drawn, mean + exp(log-variance / 2) noise, one key per example; otherwise it is the mean.

    Args:
      num_pixels: D >= 1, pixels times channels.
      latent_dim: q >= 1; `penultimate` is [B, 2 q], means before log-variances.
      hidden: units of the encoder's and the decoder's one hidden layer.
      axis_name: accepted for uniformity.

    Returns:
      `Model`; inputs are [B, *S] with prod(S) = D.

    Raises:
      ValueError: a size below 1.

    References:
      Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.

    Examples:
      >>> model = make(16, latent_dim=2, hidden=8)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4)))
      >>> outputs, _ = model.apply(variables, jnp.ones((3, 4, 4)), train=False, rngs=None)
      >>> outputs.logits.shape, outputs.penultimate.shape, decode(variables, outputs.penultimate[:, :2]).shape
      ((3, 16), (3, 4), (3, 16))
    """
    del axis_name
    linen.positive_integers("num_pixels, latent_dim and hidden", (num_pixels, latent_dim, hidden))
    return linen.as_model(Network(num_pixels, latent_dim, hidden), input_rank=None)


def decode(variables: PyTree, latents: Float[Array, "B q"]) -> Float[Array, "B D"]:
    """Pixels' means in [0, 1] at given latents."""
    weights = variables["params"]
    network = Network(weights[OUTPUT_LAYER]["bias"].size, latents.shape[-1], weights["decoder"]["bias"].size)
    return jax.nn.sigmoid(network.apply(variables, latents, method=Network.decode))
