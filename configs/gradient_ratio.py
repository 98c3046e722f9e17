"""Gradient analysis: does the loss pull on the head or on the tail? rho over K = 3..40000 for three losses and three student states.

Reproduces: section 3 of Ryabinin, Malinin & Gales 2021 (the definition of rho is a reconstruction). Expected: EnD2's rho falls like 1 / K
from the start (0.456 at K = 3 to 0.00416 at K = 1000, precision 100 K); reverse KL stays at 1.33.
Takes about half a minute on two cores.
Command: python launch/run.py --config configs/gradient_ratio.py --workdir runs/gradient_ratio
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")
    return ConfigDict(
        {
            "experiment": "gradient_ratio",
            "name": "gradient_ratio",
            "num_classes": (3, 10) if arg == "smoke" else (3, 6, 10, 20, 30, 100, 300, 1000, 3000, 10000, 40000),
            "head_probability": 0.9,
            "precision_per_class": (1.0, 100.0),
            "states": ("init", "near", "misaligned"),
            "losses": ("nll", "forward_kl", "reverse_kl_paper", "reverse_kl_authors"),
        }
    ).lock()
