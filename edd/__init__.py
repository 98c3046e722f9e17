"""Ensemble distribution distillation: one network that keeps an ensemble's uncertainty.

The mathematics needs jax, numpy, chex and jaxtyping only: `edd.math`, `edd.distributions`, `edd.uncertainty`, `edd.losses`
and, imported when first used, `edd.metrics`. What trains networks is imported when first used too, and needs the extra
`train`: `edd.models`, `edd.data`, `edd.ensembles`, `edd.distillers`, `edd.training`, `edd.experiments`.
"""

import importlib

from edd import distributions as distributions
from edd import losses as losses
from edd import math as math
from edd import uncertainty as uncertainty

__version__ = "0.1.0"

_LAZY = ("data", "decoding", "distillers", "ensembles", "experiments", "metrics", "models", "training")


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"edd.{name}")
    raise AttributeError(f"module 'edd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
