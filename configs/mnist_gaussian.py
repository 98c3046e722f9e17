"""Gaussian distillation of four CNNs on MNIST: latent factor student against Hydra, BatchEnsemble, Dirichlet students and others.

Reproduces: the protocol of the image tables of arXiv 2510.19290 (accuracy, NLL, ECE, AUROC by mutual information; 4 teachers, q = 8) at a
size that two CPU cores can carry; every student has the same small backbone, the small ensemble is four of them.
Teachers train for 5 epochs, the small ensemble and the students for 10.
Expected: the latent factor student's NLL below Hydra's and the latent BatchEnsemble's.
Needs: TFDS directories mnist, fashion_mnist, kmnist (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/mnist_gaussian.py --workdir runs/mnist_gaussian --data_dir DIR
"""

from ml_collections import ConfigDict

TEACHER = {"batch_norm": True}
STUDENT = {"batch_norm": True, "channels": [8, 16], "hidden": 64}
NUM_MEMBERS, LATENT_DIM, SEEDS = 4, 8, 2


def training(epochs: float, options: dict, batch_size: int = 128) -> dict:
    return {
        "model": {"name": "cnn", "options": options},
        "optimizer": {"name": "adam", "learning_rate": 3e-3, "schedule": "one_cycle"},
        "epochs": epochs,
        "batch_size": batch_size,
        "checkpoint_every": 500,
    }


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")

    def student(method: str, backbone: dict | None = None, **options) -> dict:
        return {"method": method, "seeds": SEEDS, "training": training(10.0, {**STUDENT, **(backbone or {})}), "options": options}

    latent = {"factor_init": "ones"}
    config = ConfigDict(
        {
            "name": "mnist_gaussian",
            "seed": 0,
            "smoke": arg == "smoke",
            "data": {"name": "mnist", "ood": {"fashion_mnist": {}, "kmnist": {}}},
            "ensemble": {"num_members": NUM_MEMBERS, "training": training(5.0, TEACHER)},
            "baselines": {"small ensemble": {"num_members": NUM_MEMBERS, "training": training(10.0, STUDENT)}},
            "students": {
                "DLF": student("dlf", latent_dim=LATENT_DIM),
                "Hydra": student("hydra"),
                "BatchEnsemble": student("batch_ensemble"),
                "LBE (mask)": student("batch_ensemble", latent, averaging="mask"),
                "EnD": student("end"),
                "EnD2": student("end2", initial_temperature=10.0, hold_epochs=4.0, decay_epochs=5.0),
                "proxy": student("proxy"),
                "EDFM": student("edfm", num_features=64, widths=[128, 128]),
                "MIMO": student("mimo", num_inputs=2),
            },
        }
    )
    if arg == "smoke":  # within CI's half minute; tests train the other methods
        config.students = {name: config.students[name] for name in ("DLF", "LBE (mask)")}
        config.data.ood, config.baselines = {"kmnist": {}}, {}
    return config.lock()
