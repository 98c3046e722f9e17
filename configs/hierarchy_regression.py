"""Ensembles of 10 sub-ensembles on y = sin x + noise: the variance between sub-ensembles falls like one over their size.

Reproduces: figure 1 of Kirsch 2024 ("(Implicit) Ensembles of Ensembles", arXiv 2409.02628), which states the function and N(0, 0.1)
(variance or standard deviation: not said) and nothing else; 0.1 is the standard deviation here. Expected: no number is printed;
"inverse relationship", so a slope of about -1 in logarithms. Seen: -1.03 +- 0.03 (all disjoint ensembles; 5 draws of data and members).
Argument: smoke.
Seen on one busy core: 2.4 minutes, 47 s of processor time.
Command: python launch/run.py --config configs/hierarchy_regression.py --workdir runs/hierarchy_regression
"""

from ml_collections import ConfigDict

STEPS = 500


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")
    training = {
        "model": {"name": "mlp", "options": {"widths": [64], "activation": "tanh"}},
        "optimizer": {"name": "adam", "learning_rate": 1e-2},
        "epochs": float(STEPS),
        "max_steps": STEPS,
        "batch_size": 40,
    }
    return ConfigDict(
        {
            "experiment": "hierarchy_regression",
            "name": "hierarchy_regression",
            "smoke": arg == "smoke",
            "seed": 0,
            "training": training,
            "sizes": [1, 2, 5, 10, 20, 50],
            "num_groups": 10,
            "num_points": 40,
            "clusters": [[-2.5, -0.5], [1.0, 2.5]],
            "noise": 0.1,
            "extent": 3.0,
            "repeats": 5,
        }
    ).lock()
