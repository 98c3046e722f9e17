"""Ensembles of ensembles: 24 members read as 24 x 1, 12 x 2, ... 2 x 12, and what knowledge uncertainty is left between the groups.

Reproduces: figure 4 of arXiv 2409.02628 (24 WRN-28-1 on CIFAR-10 against SVHN; 350 epochs, SGD with momentum 0.9, rate 0.1, times 0.1
at epochs 150 and 250, weight decay 5e-4, batch 128). Expected: the mean falls along the partitions, on or above (G - 1) / (G M - 1) of the
flat ensemble's, and detection by it gets worse. The default is an MNIST twin for one CPU core: 24 MLPs 784-64-32-10, 12 epochs, against
Fashion-MNIST and KMNIST. Consecutive members make groups; `--config.permutations=N` averages over N random groupings.
Argument: comma-separated: cifar10 (the paper's, one accelerator or more), short (with cifar10: 30 epochs, one accelerator), seed=N, smoke.
Needs: TFDS directories mnist, fashion_mnist, kmnist; or cifar10, svhn_cropped, cifar100 (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/partitions.py --workdir runs/partitions --data_dir DIR
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"cifar10", "short", "seed", "smoke"}
    if unknown or not given.get("seed", "0").isdigit() or ("short" in given and "cifar10" not in given):
        raise ValueError(f"unknown argument {arg!r}: known are cifar10, short (with cifar10), seed=N, smoke")
    mnist = {
        "data": {"name": "mnist", "ood": {"fashion_mnist": {}, "kmnist": {}}},
        "training": {
            "model": {"name": "mlp", "options": {"widths": [64, 32], "dropout": 0.1}},
            "optimizer": {"name": "sgd", "learning_rate": 0.05, "options": {"momentum": 0.0}},
            "epochs": 12.0,
            "batch_size": 128,
        },
    }
    cifar = {
        "data": {"name": "cifar10", "validation": 0.1, "ood": {"svhn_cropped": {}, "cifar100": {}}},
        "training": {
            "model": {"name": "wide_resnet", "options": {"depth": 28, "widen": 1}},
            "optimizer": {
                "name": "sgd",
                "learning_rate": 0.1,
                "schedule": "multistep",
                "weight_decay": 5e-4,
                "options": {"momentum": 0.9, "milestones": [150 / 350, 250 / 350], "decay_on": "all"},
            },
            "epochs": 30.0 if "short" in given else 350.0,
            "batch_size": 128,
            "augment": "crop+flip",
            "checkpoint_every": 2000,
        },
    }
    chosen = cifar if "cifar10" in given else mnist
    return ConfigDict(
        {
            "experiment": "partitions",
            "name": "cifar10_partitions" if "cifar10" in given else "mnist_partitions",
            "seed": int(given.get("seed", "0")),
            "smoke": "smoke" in given,
            "data": chosen["data"],
            "ensemble": {"num_members": 24, "training": chosen["training"]},
            "permutations": 0,
        }
    ).lock()
