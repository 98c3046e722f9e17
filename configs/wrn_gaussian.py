"""Gaussian distillation of Wide ResNets on CIFAR-10, CIFAR-100 and Tiny-ImageNet: the image tables of arXiv 2510.19290 at full size.

Reproduces: table of section 5.2 (CIFAR-10: WRN-28-1 to WRN-16-1; CIFAR-100: WRN-28-4 to WRN-28-1; 4 teachers, q = 8, 200 epochs, SGD with
Nesterov momentum 0.9, weight decay 5e-4, batch 128, 5 epochs of warm-up to 0.1, cosine) and Tiny-ImageNet's (WRN-28-4 to WRN-16-4).
Expected, paper (accuracy %, NLL): CIFAR-10 teachers 94.24, 0.154; DLF 93.40, 0.225; Hydra 93.16, 0.266; latent BatchEnsemble 93.25, 0.248.
CIFAR-100 teachers 81.36, 0.717; DLF 79.68, 0.897; Hydra 77.42, 1.291. Tiny-ImageNet teachers 68.74, 1.281; DLF 58.34, 1.674.
Other than in the paper: all training images train, warm-up starts at 0, and the E-step's images are not augmented.
Argument: comma-separated, one of cifar10 (default), cifar100, tiny_imagenet; smoke.
Needs: the TFDS directory of the set, and of svhn_cropped and cifar100 as out-of-distribution sets for CIFAR-10 (Tiny-ImageNet: a TFDS
directory that the user has built). One accelerator, about a day; not run at this size here.
Command: python launch/run.py --config configs/wrn_gaussian.py:cifar10 --workdir runs/wrn_gaussian --data_dir DIR
"""

from ml_collections import ConfigDict

SETS = {  # teacher (depth, widen), student, out-of-distribution sets, names of splits
    "cifar10": ((28, 1), (16, 1), {"svhn_cropped": {}, "cifar100": {}}, "test"),
    "cifar100": ((28, 4), (28, 1), {"svhn_cropped": {}, "cifar10": {}}, "test"),
    "tiny_imagenet": ((28, 4), (16, 4), {}, "validation"),
}
PAPER = {  # row -> accuracy, NLL, ECE
    "cifar10": {
        "Ensemble": (0.9424, 0.1539, 0.009),
        "small ensemble": (0.9287, 0.2377, 0.0393),
        "Hydra": (0.9316, 0.2660, 0.0415),
        "LBE (mask)": (0.9325, 0.2480, 0.0411),
        "proxy": (0.9092, 0.2861, 0.0208),
        "EDFM": (0.9062, 0.2858, 0.0278),
        "DLF": (0.9340, 0.2246, 0.0279),
    },
    "cifar100": {
        "Ensemble": (0.8136, 0.7167, 0.0141),
        "small ensemble": (0.7929, 1.0413, 0.1290),
        "Hydra": (0.7742, 1.2912, 0.1270),
        "LBE (mask)": (0.7958, 1.0110, 0.1342),
        "proxy": (0.6762, 1.2355, 0.0735),
        "EDFM": (0.6417, 1.6741, 0.1135),
        "DLF": (0.7968, 0.8974, 0.0945),
    },
    "tiny_imagenet": {
        "Ensemble": (0.6874, 1.2806, 0.0322),
        "small ensemble": (0.5711, 1.854, 0.1351),
        "Hydra": (0.5680, 1.7503, 0.0275),
        "LBE (mask)": (0.4608, 2.24, 0.0222),
        "proxy": (0.5164, 2.0195, 0.0277),
        "DLF": (0.5834, 1.6737, 0.0192),
    },
}
NUM_MEMBERS, LATENT_DIM = 4, 8


def training(shape: tuple[int, int], **options) -> dict:
    return {
        "model": {"name": "wide_resnet", "options": {"depth": shape[0], "widen": shape[1], **options}},
        "optimizer": {
            "name": "nesterov",
            "learning_rate": 0.1,
            "schedule": "cosine",
            "warmup_epochs": 5.0,
            "weight_decay": 5e-4,
            "options": {"momentum": 0.9},
        },
        "epochs": 200.0,
        "batch_size": 128,
        "augment": "crop+flip",
        "checkpoint_every": 2000,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = set(arg.split(",")) - {""}
    chosen = sorted(given - {"smoke"}) or ["cifar10"]
    if len(chosen) > 1 or chosen[0] not in SETS:
        raise ValueError(f"unknown argument {arg!r}: give one of {', '.join(SETS)}, and smoke if wanted")
    name = chosen[0]
    teacher, small, ood, test_split = SETS[name]

    def student(method: str, backbone: dict | None = None, **options) -> dict:
        return {
            "method": method,
            "seeds": 5,
            "targets": "online",
            "training": training(small, **(backbone or {})),
            "options": options,
        }

    latent = {"factor_init": "ones"}
    config = ConfigDict(
        {
            "name": f"wrn_gaussian_{name}",
            "seed": 0,
            "smoke": "smoke" in given,
            "data": {"name": name, "test_split": test_split, "ood": ood},
            "ensemble": {"num_members": NUM_MEMBERS, "training": training(teacher)},
            "baselines": {"small ensemble": {"num_members": NUM_MEMBERS, "training": training(small)}},
            "students": {
                "DLF": student("dlf", latent_dim=LATENT_DIM, update_every=800),  # two epochs
                "Hydra": student("hydra"),
                "BatchEnsemble": student("batch_ensemble"),
                "LBE (mask)": student("batch_ensemble", latent, averaging="mask"),
                "LBE (factors)": student("batch_ensemble", latent, averaging="factors"),
                "EnD": student("end"),
                "EnD2": student("end2", initial_temperature=10.0, hold_epochs=60.0, decay_epochs=80.0),
                "proxy": student("proxy"),
                "EDFM": student("edfm", num_features=64 * small[1]),
                "MIMO": student("mimo", num_inputs=3, batch_repetition=4),
            },
            "evaluation": {
                "reference": {row: {"accuracy": values[0], "nll": values[1], "ece": values[2]} for row, values in PAPER[name].items()}
            },
        }
    )
    if config.smoke:  # within CI's half minute
        config.students = {name: config.students[name] for name in ("DLF",)}
        config.data.ood, config.baselines = {}, {}
        config.students.DLF.targets, config.students.DLF.training.augment = "cache", "none"
    return config.lock()
