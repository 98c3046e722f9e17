"""ResNet-56 and AlexNet trained on hard and on smoothed labels: calibration and projections on CIFAR, information of a logit on CIFAR-10.

Reproduces: table 3, table 2 and figures 1 (first and second row), 2 and 6 of arXiv 1906.02629. CIFAR-100: ECE 0.150, temperature scaling
0.021 at T = 1.9, smoothing 0.05 0.024; accuracy 72.1 +- 0.3 % without and 72.7 +- 0.3 % with smoothing 0.1. CIFAR-10, AlexNet: 86.8 +- 0.2
and 86.7 +- 0.3 %. In all: 40,000 training images, the paper's 10,000 validation images are the rest; five seeds, batch 128, every image
standardised by itself, cross-entropy times 3.
ResNet-56: Tensor2Tensor's (pre-activation, widths 32, 64, 128; 3,419,284 parameters for 100 classes), 64,000 steps, Nesterov momentum 0.9,
rate 0.1 divided by 10 at half and three quarters, weight decay 1e-4 on all parameters, gradient norm clipped at 1, images padded to 40
pixels, cropped and mirrored. AlexNet: the tutorial's on 24 pixels (1,068,298 parameters), 390,000 steps, SGD without momentum, rate
0.1 divided by 10 every 130,000, decay 0.04 on its dense layers, random windows, mirrors, brightness and contrast.
Cross-entropy times 3 is here rate 0.3, a third of decay and of clipping: the same update, but that the decay is not clipped.
For an accelerator; not run here.
Argument: comma-separated: cifar10 (ResNet-56's information over training in place of CIFAR-100's study), alexnet (AlexNet on CIFAR-10),
seed=N, seeds=N, smoke.
Needs: TFDS directory cifar100 or cifar10 (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/cifar_smoothing.py --workdir runs/cifar_smoothing --data_dir DIR
"""

from ml_collections import ConfigDict

STEPS_PER_EPOCH = 40_000 // 128


def program(model: dict, steps: int, name: str, milestones: list, augment: str, *, clip_norm=None, weight_decay: float, **options) -> dict:
    """A training program of the paper, for cross-entropy times 3."""
    return {
        "model": model,
        "optimizer": {
            "name": name,
            "learning_rate": 0.3,
            "schedule": "multistep",
            "weight_decay": weight_decay,
            "clip_norm": clip_norm,
            "options": {"milestones": milestones, **options},
        },
        "epochs": steps / STEPS_PER_EPOCH,
        "batch_size": 128,
        "augment": augment,
        "augment_padding": 4,
        "checkpoint_every": 4000,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"cifar10", "alexnet", "seed", "seeds", "smoke"}
    if unknown or {"cifar10", "alexnet"} <= set(given) or not (given.get("seed", "0") + given.get("seeds", "5")).isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are cifar10 or alexnet, seed=N, seeds=N, smoke")
    alexnet, curve, smoke = "alexnet" in given, "cifar10" in given, "smoke" in given
    if alexnet:
        layers, steep = ["local3", "local4"], [1 / 3, 2 / 3]
        views = {"augment": "window24+flip+brightness+contrast", "weight_decay": 0.04 / 3}
        training = program({"name": "alexnet", "options": {}}, 390_000, "sgd", steep, **views, momentum=0.0, decay_layers=layers)
        reference = {"0 %": {"accuracy %": 0.868}, "10 %": {"accuracy %": 0.867}}
    else:
        deep = {"name": "cifar_resnet", "options": {"depth": 56, "widths": [32, 64, 128], "pre_activation": True}}
        views = {"augment": "shift+flip", "weight_decay": 1e-4 / 3, "clip_norm": 1 / 3}
        training = program(deep, 64_000, "nesterov", [0.5, 0.75], **views, momentum=0.9, decay_on="all")
        hard = {"accuracy %": 0.721, "ECE %": 0.150, "T": 1.9, "ECE % at T": 0.021}
        reference = {} if curve else {"0 %": hard, "5 %": {"ECE %": 0.024}, "10 %": {"accuracy %": 0.727}}
    small = curve or alexnet
    return ConfigDict(
        {
            "experiment": "smoothing_features",
            "name": "cifar_smoothing",
            "seed": int(given.get("seed", "0")),
            "smoke": smoke,
            "data": {
                "name": "cifar10" if small else "cifar100",
                "options": {"standardise": "image", "crop": 24 if alexnet else 0},
                "train_split": "train[:40000]",
                "test_split": "train[40000:]",
            },
            "ensemble": {"num_members": int(given.get("seeds", "5")), "training": training},
            "smoothings": [0.1] if smoke else [0.0, 0.1] if small else [0.0, 0.05, 0.1],
            "triples": [[0, 1, 2]] if small else [[4, 30, 55]],  # airplane, automobile, bird; beaver, dolphin, otter
            "reference": reference,
            **({"information": {"classes": [0, 5], "snapshots": 16}} if curve else {}),
            "temperatures": [0.5, 0.7, 1.0, 1.2, 1.4, 1.6, 1.9, 2.2, 2.6, 3.0],
        }
    ).lock()
