"""Students of teachers at many smoothings and temperatures: four curves of accuracy over gamma, the smoothing that the targets equal.

Reproduces: figure 5 of arXiv 1906.02629 (section 4, CIFAR-10, ResNet-56 to AlexNet, five seeds) at Fashion-MNIST's scale: CNN teachers,
MLP students 784-64-10, 10,000 training images, three seeds. Curves: teachers over smoothing; students without teachers over smoothing;
students of hard teachers over T; students of smoothed teachers at T = 1. Expected, as the paper claims: teachers gain from smoothing up to
0.6; students of hard teachers beat plain students at the same gamma at every T; students of smoothed teachers do not. The paper shows
its numbers in the figure alone.
Argument: comma-separated: seed=N, seeds=N, smoke.
Needs: TFDS directory fashion_mnist (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/smoothing_gamma.py --workdir runs/smoothing_gamma --data_dir DIR
"""

from ml_collections import ConfigDict

SMOOTHINGS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 8.0, 12.0, 16.0)


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"seed", "seeds", "smoke"}
    if unknown or not (given.get("seed", "0") + given.get("seeds", "3")).isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are seed=N, seeds=N, smoke")
    smoke = "smoke" in given
    seeds = int(given.get("seeds", "1" if smoke else "3"))
    smoothings, temperatures = (SMOOTHINGS[:2], TEMPERATURES[1:2]) if smoke else (SMOOTHINGS, TEMPERATURES)

    def training(model: str, options: dict, epochs: float) -> dict:
        optimizer = {"name": "adam", "learning_rate": 2e-3, "schedule": "cosine"}
        return {"model": {"name": model, "options": options}, "optimizer": optimizer, "epochs": epochs, "batch_size": 128}

    def pupil(curve: str, teacher: str, method: str, **options) -> dict:
        student = {"method": method, "options": options, "training": training("mlp", {"widths": [64]}, 20.0)}
        return {"curve": curve, "teacher": teacher, "student": student}

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
            "data": {"name": "fashion_mnist", "num_train": 10_000},
            "teachers": {
                f"teacher {a:.0%}": {"num_members": seeds, "smoothing": a, "training": training("cnn", {}, 8.0)} for a in smoothings
            },
            "pupils": pupils,
        }
    ).lock()
