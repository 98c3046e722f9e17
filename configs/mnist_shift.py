"""Renamed MNIST classes: heads on frozen bodies (a plain network, Hydra, latent factors) learn y -> 9 - y from few labels.

Reproduces: the protocol of arXiv 2510.19290's CIFAR10-Flip figure (which has no numbers) on MNIST, five draws of the labels, both heads
that its text allows for the latent factor student; `cifar10` takes WRN-28-1 teachers and WRN-16-1 bodies for an accelerator,
`cifar10,cnn` CNNs that one CPU core can carry.
Argument: comma-separated, any of cifar10, cnn, smoke.
Needs: the TFDS directory of the set (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/mnist_shift.py --workdir runs/mnist_shift --data_dir DIR
"""

from ml_collections import ConfigDict

NETWORKS = {  # model, teacher's options, body's options
    "mnist": ("cnn", {"batch_norm": True}, {"batch_norm": True, "channels": [8, 16], "hidden": 64}),
    "cifar10": ("wide_resnet", {"depth": 28, "widen": 1}, {"depth": 16, "widen": 1}),
    "cifar10,cnn": ("cnn", {"batch_norm": True, "channels": [24, 48]}, {"batch_norm": True, "channels": [16, 32], "hidden": 64}),
}


def training(model: str, options: dict, wide: bool, epochs: float) -> dict:
    sgd = {"name": "nesterov", "learning_rate": 0.1, "schedule": "cosine", "warmup_epochs": 5.0, "weight_decay": 5e-4}
    adam = {"name": "adam", "learning_rate": 3e-3, "schedule": "one_cycle"}
    return {
        "model": {"name": model, "options": options},
        "optimizer": sgd if wide else adam,
        "epochs": 200.0 if wide else epochs,
        "batch_size": 128,
        "checkpoint_every": 2000 if wide else 500,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = set(arg.split(",")) - {""}
    if given - {"cifar10", "cnn", "smoke"}:
        raise ValueError(f"unknown argument {arg!r}: known are cifar10, cnn and smoke")
    name = "cifar10" if "cifar10" in given else "mnist"
    model, teacher, body = NETWORKS["cifar10,cnn" if given >= {"cifar10", "cnn"} else name]
    wide = model == "wide_resnet"

    def student(method: str, **options) -> dict:
        return {"method": method, "training": training(model, body, wide, 8.0), "options": options}

    students = {"Plain": student("supervised"), "Hydra": student("hydra"), "DLF": student("dlf", latent_dim=8)}
    if "smoke" in given:  # within CI's half minute
        students.pop("Hydra")
    return ConfigDict(
        {
            "experiment": "shift",
            "name": f"{name}_shift",
            "seed": 0,
            "smoke": "smoke" in given,
            "base": {
                "name": name,
                "data": {"name": name},
                "ensemble": {"num_members": 4, "training": training(model, teacher, wide, 5.0)},
                "students": students,
            },
            "counts": [10, 20, 50, 100, 200, 500, 1000],
            "head": {
                "model": {"name": "mlp"},  # each head is its own
                "optimizer": {"name": "adam", "learning_rate": 3e-2, "schedule": "cosine"},
                "epochs": 1e5,
                "max_steps": 500,
                "batch_size": 64,
            },
        }
    ).lock()
