"""Ten CNNs on MNIST distilled four ways; Fashion-MNIST and KMNIST as out-of-distribution sets.

Reproduces: the protocol of the proxy paper's image tables (8 and 9) at a size that two CPU cores can carry.
Expected: the proxy student within 0.15 points of the ensemble's accuracy and within 2 points of its AUROC by mutual information.
Needs: TFDS directories mnist, fashion_mnist, kmnist (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/mnist.py --workdir runs/mnist --data_dir DIR
"""

from ml_collections import ConfigDict


def training(epochs: float) -> dict:
    return {
        "model": {"name": "cnn", "options": {"batch_norm": True}},
        "optimizer": {"name": "adam", "learning_rate": 3e-3, "schedule": "one_cycle"},
        "epochs": epochs,
        "batch_size": 128,
        "checkpoint_every": 500,
    }


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")
    config = ConfigDict(
        {
            "name": "mnist",
            "seed": 0,
            "smoke": arg == "smoke",
            "data": {"name": "mnist", "ood": {"fashion_mnist": {}, "kmnist": {}}},
            "ensemble": {"num_members": 10, "training": training(5.0)},
            "students": {
                "EnD": {"method": "end", "seeds": 3, "training": training(20.0)},
                "EnD2": {
                    "method": "end2",
                    "seeds": 3,
                    "training": training(20.0),
                    "options": {"initial_temperature": 10.0, "hold_epochs": 6.0, "decay_epochs": 8.0},
                },
                "proxy_reverse": {"method": "proxy", "seeds": 3, "training": training(20.0)},
                # with offset 1 the gradient of the forward KL dies as exp(z) -> 0 and small networks get stuck there
                "proxy_forward": {
                    "method": "forward_proxy",
                    "seeds": 3,
                    "training": training(20.0),
                    "options": {"offset": 0.0, "target_offset": 1.0},
                },
            },
            "evaluation": {"num_resamples": 200},
        }
    )
    if arg == "smoke":  # within CI's half minute; configs/digits.py takes all four methods
        config.students = {name: config.students[name] for name in ("EnD2", "proxy_reverse")}
    return config.lock()
