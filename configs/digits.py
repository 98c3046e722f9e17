"""The main job: ten small networks on scikit-learn's 8x8 digits, distilled four ways, three student seeds each.

Reproduces: nothing in the papers; it shows every part of the library on real images in under two minutes on two cores.
Out of distribution: 8x8 grey patches of scikit-learn's two embedded photographs. No downloads.
Command: python launch/run.py --config configs/digits.py --workdir runs/digits
"""

from ml_collections import ConfigDict


def training(epochs: float) -> dict:
    return {
        "model": {"name": "mlp", "options": {"widths": [64, 64]}},
        "optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "cosine"},
        "epochs": epochs,
        "batch_size": 64,
    }


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")
    config = ConfigDict(
        {
            "name": "digits",
            "seed": 0,
            "smoke": arg == "smoke",
            "data": {"name": "digits", "ood": {"digits_photos": {}}},
            "ensemble": {"num_members": 10, "training": training(40.0)},
            "students": {
                "EnD": {"method": "end", "seeds": 3, "training": training(120.0)},
                "EnD2": {
                    "method": "end2",
                    "seeds": 3,
                    "training": training(120.0),
                    "options": {"initial_temperature": 10.0, "hold_epochs": 40.0, "decay_epochs": 40.0},
                },
                "proxy_reverse": {"method": "proxy", "seeds": 3, "training": training(120.0)},
                # with offset 1 the gradient of the forward KL dies as exp(z) -> 0 and small networks get stuck there
                "proxy_forward": {
                    "method": "forward_proxy",
                    "seeds": 3,
                    "training": training(120.0),
                    "options": {"offset": 0.0, "target_offset": 1.0},
                },
            },
            "evaluation": {"num_resamples": 200},
        }
    )
    return config.lock()
