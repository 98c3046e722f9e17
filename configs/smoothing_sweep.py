"""Teachers' label smoothing against an ensemble's diversity, its proxy precision, and what EnD, proxy and latent factor students detect.

Reproduces: no published figure; it puts the question of arXiv 1906.02629 (what does smoothing erase?) to ensemble distribution
distillation (arXiv 2105.06987, 2510.19290). Expected: mutual information and EPKL fall with smoothing as logits get bounded, so the proxy
precision grows; whether detection suffers is what the run shows.
Ten MLPs 784-64-64-10 for each of seven smoothings, 10,000 training images, 10 epochs; students the same network, 20 epochs.
Argument: comma-separated: fashion (Fashion-MNIST in place of MNIST), full (all images, CNNs with BatchNorm),
smoothing=A+B, seed=N, smoke.
Needs: TFDS directories mnist, fashion_mnist, kmnist (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/smoothing_sweep.py --workdir runs/smoothing_sweep --data_dir DIR
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"fashion", "full", "smoothing", "seed", "smoke"}
    chosen = given.get("smoothing", "0").split("+")
    if unknown or not given.get("seed", "0").isdigit() or not all(each.lstrip("-").replace(".", "", 1).isdigit() for each in chosen):
        raise ValueError(f"unknown argument {arg!r}: known are fashion, full, smoothing=A+B, seed=N, smoke")
    full = "full" in given
    model = {"name": "cnn", "options": {"batch_norm": True}} if full else {"name": "mlp", "options": {"widths": [64, 64]}}

    def training(epochs: float) -> dict:
        optimizer = {"name": "adam", "learning_rate": 3e-3 if full else 1e-3, "schedule": "one_cycle" if full else "cosine"}
        return {"model": model, "optimizer": optimizer, "epochs": epochs, "batch_size": 128}

    def student(method: str, **options) -> dict:
        return {"method": method, "seeds": 3, "training": training(20.0), "options": options}

    inside, outside = ("fashion_mnist", "mnist") if "fashion" in given else ("mnist", "fashion_mnist")
    default = [0.1] if "smoke" in given else [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7]
    config = ConfigDict(
        {
            "experiment": "smoothing_sweep",
            "name": "smoothing_sweep",
            "seed": int(given.get("seed", "0")),
            "smoke": "smoke" in given,
            "smoothings": [float(each) for each in chosen] if "smoothing" in given else default,
            "base": {
                "data": {"name": inside, "num_train": 0 if full else 10_000, "ood": {outside: {}, "kmnist": {}}},
                "ensemble": {"num_members": 10, "training": training(5.0 if full else 10.0)},
                "students": {"EnD": student("end"), "proxy": student("proxy"), "DLF": student("dlf", latent_dim=8)},
                "evaluation": {"num_resamples": 0, "timed_examples": 0},
            },
        }
    )
    if "smoke" in given:  # within CI's half minute; tests train the other methods
        config.base.students, config.base.data.ood = {"EnD": student("end")}, {"kmnist": {}}
    return config.lock()
