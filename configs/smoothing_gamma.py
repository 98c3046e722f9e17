"""Students of teachers at many smoothings and temperatures: four curves of accuracy over gamma, the smoothing that the targets equal.

Reproduces: figure 5 of arXiv 1906.02629 (section 4, CIFAR-10, ResNet-56 to AlexNet, five seeds) at Fashion-MNIST's scale: CNN teachers,
MLP students 784-64-10, 10,000 training images, three seeds. Curves: teachers over smoothing; students without teachers over smoothing;
students of hard teachers over T; students of smoothed teachers at T = 1. Expected, as the paper claims: teachers gain from smoothing up to
0.6; students of hard teachers beat plain students at the same gamma at every T; students of smoothed teachers do not. The paper shows
its numbers in the figure alone (AlexNet 86.8 +- 0.2 % without and 86.7 +- 0.3 % with smoothing 0.1 in table 2).
With cifar10 the paper's own: ResNet-56 of widths 32, 64, 128 (64,000 steps) teaches the 32-pixel AlexNet (390,000 steps, plain SGD, rate
0.1 divided by 10 every 130,000, decay 0.04 on its dense layers), cross-entropy times 3 as three times the rate and a third of decay and
clipping, five seeds, 40,000 training and 10,000 validation images, each standardised by itself. For an accelerator; not run here.
Argument: comma-separated: cifar10, seed=N, seeds=N, smoke.
Needs: TFDS directory fashion_mnist, or cifar10 (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/smoothing_gamma.py --workdir runs/smoothing_gamma --data_dir DIR
"""

from ml_collections import ConfigDict

SMOOTHINGS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 8.0, 12.0, 16.0)
CIFAR = {"name": "cifar10", "options": {"standardise": "image"}, "train_split": "train[:40000]", "test_split": "train[40000:]"}
CIFAR_STEPS_PER_EPOCH = 40_000 // 128


def descent(steps: int, name: str, milestones: list, **options) -> dict:
    """A program of the paper on CIFAR-10, for cross-entropy times 3."""
    rest = {key: options.pop(key) for key in ("weight_decay", "clip_norm") if key in options}
    optimizer = {"name": name, "learning_rate": 0.3, "schedule": "multistep", **rest, "options": {"milestones": milestones, **options}}
    views = {"augment": "shift+flip", "augment_padding": 4}
    return {"optimizer": optimizer, "epochs": steps / CIFAR_STEPS_PER_EPOCH, "batch_size": 128, "checkpoint_every": 4000, **views}


def programs(cifar: bool) -> tuple[dict, dict]:
    """How a teacher and a student are trained."""
    if not cifar:
        common = {"optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "cosine"}, "batch_size": 128}
        student = {"model": {"name": "mlp", "options": {"widths": [64]}}, "epochs": 20.0, **common}
        return {"model": {"name": "cnn", "options": {}}, "epochs": 8.0, **common}, student
    deep = {"name": "cifar_resnet", "options": {"depth": 56, "widths": [32, 64, 128], "pre_activation": True}}
    teacher = descent(64_000, "nesterov", [0.5, 0.75], weight_decay=1e-4 / 3, clip_norm=1 / 3, momentum=0.9, decay_on="all")
    layers = ["local3", "local4"]
    student = descent(390_000, "sgd", [1 / 3, 2 / 3], weight_decay=0.04 / 3, momentum=0.0, decay_layers=layers)
    return {"model": deep, **teacher}, {"model": {"name": "alexnet", "options": {}}, **student}


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"cifar10", "seed", "seeds", "smoke"}
    if unknown or not (given.get("seed", "0") + given.get("seeds", "3")).isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are cifar10, seed=N, seeds=N, smoke")
    smoke, cifar = "smoke" in given, "cifar10" in given
    seeds = int(given.get("seeds", "1" if smoke else "5" if cifar else "3"))
    smoothings, temperatures = (SMOOTHINGS[:1], TEMPERATURES[1:2]) if smoke else (SMOOTHINGS, TEMPERATURES)
    teacher, student = programs(cifar)

    def pupil(curve: str, teacher: str, method: str, **options) -> dict:
        targets = "online" if cifar else "cache"  # of augmented inputs
        own = {"method": method, "options": options, "targets": targets, "training": student}
        return {"curve": curve, "teacher": teacher, "student": own}

    pupils = {f"smoothing {a:.0%}": pupil("students without teachers", "", "supervised", smoothing=a) for a in smoothings}
    for t in temperatures:
        options = {"beta": 1.0, "teacher_temperature": t}
        pupils[f"hard teacher, T = {t:g}"] = pupil("students of hard teachers", "teacher 0%", "knowledge_distillation", **options)
    for a in smoothings[1:]:
        pupils[f"teacher {a:.0%}, T = 1"] = pupil("students of smoothed teachers", f"teacher {a:.0%}", "knowledge_distillation", beta=1.0)
    if smoke:
        pupils = {name: pupils[name] for name in ("smoothing 0%", "hard teacher, T = 2")}
    return ConfigDict(
        {
            "experiment": "smoothing_distillation",
            "name": "smoothing_gamma",
            "seed": int(given.get("seed", "0")),
            "smoke": smoke,
            "data": CIFAR if cifar else {"name": "fashion_mnist", "num_train": 10_000},
            "teachers": {f"teacher {a:.0%}": {"num_members": seeds, "smoothing": a, "training": teacher} for a in smoothings},
            "pupils": pupils,
        }
    ).lock()
