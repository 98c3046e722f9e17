"""One network trained on hard and on smoothed labels: calibration, penultimate projections, and what a logit tells about its example.

Reproduces: figures 1, 2 and 6 and table 3 of arXiv 1906.02629, at Fashion-MNIST's scale by default. Expected: smoothing tightens the
clusters and lowers the ECE about as far as a temperature does; it lowers the information; hard labels have the lower NLL at the best T.
Paper's numbers, CIFAR-100 and ResNet-56: ECE 0.150, 0.021 at T = 1.9, 0.024 with smoothing 0.05; ImageNet and Inception-v4: 0.071, 0.022
at T = 1.4, 0.035 with smoothing 0.1; CIFAR-100 accuracy 72.1 and 72.7 %.
Argument: comma-separated: information (a run with augmented views and the curve over training), epochs=N, smoothing=A (one value alone, to
run a study in parts), seed=N, seeds=N, smoke.
Needs: TFDS directory fashion_mnist (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/fashion_smoothing.py --workdir runs/fashion_smoothing --data_dir DIR
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"information", "epochs", "smoothing", "seed", "seeds", "smoke"}
    counts, smoothing = given.get("seed", "0") + given.get("seeds", "3") + given.get("epochs", "30"), given.get("smoothing", "0")
    if unknown or not counts.isdigit() or not smoothing.lstrip("-").replace(".", "", 1).isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are information, epochs=N, smoothing=A, seed=N, seeds=N, smoke")
    curve = "information" in given
    training = {
        "model": {"name": "mlp", "options": {"widths": [128, 64]}},
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine"},
        "epochs": float(given.get("epochs", "30")),
        "batch_size": 128,
        **({"augment": "crop+flip", "augment_padding": 2} if curve else {}),
    }
    return ConfigDict(
        {
            "experiment": "smoothing_features",
            "name": "fashion_smoothing",
            "seed": int(given.get("seed", "0")),
            "smoke": "smoke" in given,
            "data": {"name": "fashion_mnist", "num_train": 20_000, "validation": 0.1},
            "ensemble": {"num_members": int(given.get("seeds", "3")), "training": training},
            "smoothings": [float(smoothing)] if "smoothing" in given else [0.0, 0.1] if curve else [0.0, 0.05, 0.1],
            "triples": [[0, 1, 2], [2, 4, 6]],
            **({"information": {"classes": [0, 5]}} if curve else {}),
            "temperatures": [0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0],
        }
    ).lock()
