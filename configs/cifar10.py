"""Ten Wide-ResNet-28-10 on CIFAR-10, distilled to their mean and to their distribution. For accelerators.

Out of distribution: SVHN and CIFAR-100.
Reproduces: the image protocol of the proxy paper at CIFAR size; members train 200 epochs with SGD, Nesterov momentum and
cosine decay. Expected from the literature: single member about 96 % accuracy. Not run here: it needs a GPU or TPU for a day.
Needs: TFDS directories cifar10, svhn_cropped, cifar100 (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/cifar10.py --workdir runs/cifar10 --data_dir DIR
"""

from ml_collections import ConfigDict


def training() -> dict:
    return {
        "model": {"name": "wide_resnet", "options": {"depth": 28, "widen": 10}},
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.1,
            "schedule": "cosine",
            "warmup_epochs": 1.0,
            "weight_decay": 5e-4,
            "options": {"momentum": 0.9, "nesterov": True},
        },
        "epochs": 200.0,
        "batch_size": 128,
        "augment": "crop+flip",
        "checkpoint_every": 2000,
    }


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise ValueError(f"unknown argument {arg!r}: the only one is smoke")

    def student(method: str, **options) -> dict:
        return {"method": method, "seeds": 3, "training": training(), "options": options, "targets": "online"}

    config = ConfigDict(
        {
            "name": "cifar10",
            "seed": 0,
            "smoke": arg == "smoke",
            "data": {"name": "cifar10", "ood": {"svhn_cropped": {}, "cifar100": {}}},
            "ensemble": {"num_members": 10, "training": training()},
            "students": {
                "EnD": student("end"),
                "proxy_reverse": student("proxy"),
            },
            "evaluation": {"num_resamples": 1000},
        }
    )
    if arg == "smoke":  # within CI's half minute
        config.students = {"proxy_reverse": config.students.proxy_reverse}
    return config.lock()
