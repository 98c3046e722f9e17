"""Epistemic collapse: ten MLPs at several widths on MNIST, their knowledge uncertainty, and what masks get out of one of them.

Reproduces: figure 2, tables 1 and 2 and figure 5 of arXiv 2409.02628 (784-64w-32w-10, ReLU, dropout 0.1, ten members, SGD). Expected:
mutual information falls with width on every set (paper, MNIST: 0.0397 at 1, 0.0182 at 8, 0.0096 at 128) and is least on MNIST, more
on ambiguous images, most on Fashion-MNIST; masks with weight 2 of the diversity recover much of a trained ensemble's.
The default is a preset for two CPU cores: widths 1, 4 and 8, 12 epochs at learning rate 0.05 in place of 100 at 0.01, masks at width 8.
The ambiguous images are ours (midpoints in an autoencoder's latent space), not Ambiguous-MNIST's, unless its released files are given.
Argument: comma-separated: full (the paper's widths and schedule, masks at width 64; an accelerator), widths=1+4, weights=0.5+2 (of the
masks' diversity), dirty=FOLDER (with amnist_samples.pt and amnist_labels.pt), seed=N, smoke.
Needs: TFDS directories mnist and fashion_mnist (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/mnist_widths.py --workdir runs/mnist_widths --data_dir DIR
"""

from ml_collections import ConfigDict

PAPER = {  # width -> AUROC I, H; mean difference I, H; mean I MNIST, dirty, Fashion; accuracy MNIST, dirty; NLL dirty, MNIST
    "1": (0.824, 0.833, 0.188, 0.482, 0.0397, 0.183, 0.228, 0.98, 0.761, 0.477, 0.00216),
    "2": (0.835, 0.841, 0.194, 0.420, 0.0305, 0.176, 0.225, 0.984, 0.775, 0.531, 4.81e-05),
    "4": (0.840, 0.845, 0.169, 0.362, 0.0233, 0.149, 0.192, 0.986, 0.777, 0.471, 1.53e-06),
    "8": (0.842, 0.847, 0.144, 0.329, 0.0182, 0.125, 0.162, 0.985, 0.775, 0.415, 1.73e-06),
    "32": (0.847, 0.851, 0.099, 0.285, 0.011, 0.0838, 0.11, 0.987, 0.772, 0.402, 2.64e-07),
    "64": (0.848, 0.851, 0.104, 0.280, 0.0104, 0.0882, 0.114, 0.986, 0.771, 0.46, 3.73e-08),
    "128": (0.848, 0.851, 0.100, 0.275, 0.00956, 0.0805, 0.11, 0.985, 0.766, 0.351, 7.08e-08),
}
FASHION = "fashion_mnist"
COLUMNS = (
    f"AUROC I, {FASHION}",
    f"AUROC H, {FASHION}",
    f"mean difference I, {FASHION}",
    f"mean difference H, {FASHION}",
    "mean I, test",
    "mean I, dirty",
    f"mean I, {FASHION}",
    "accuracy, test",
    "accuracy, dirty",
    "NLL, dirty",
    "median NLL, test",
)


def training(model: dict, optimizer: dict, epochs: float, batch_size: int = 128) -> dict:
    return {"model": model, "optimizer": optimizer, "epochs": epochs, "batch_size": batch_size}


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"full", "widths", "weights", "dirty", "seed", "smoke"}
    if unknown or not given.get("seed", "0").isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are full, widths=A+B, weights=A+B, dirty=FOLDER, seed=N, smoke")
    full = "full" in given
    widths = [float(each) for each in given["widths"].split("+")] if "widths" in given else [1, 2, 4, 8, 32, 64, 128] if full else [1, 4, 8]
    masked = 64.0 if full else 8.0
    network = {"name": "mlp", "options": {"widths": [64, 32], "dropout": 0.1}}
    descent = {"name": "sgd", "learning_rate": 0.01 if full else 0.05, "options": {"momentum": 0.0}}
    ambiguous = {
        "training": training({"name": "vae", "options": {"latent_dim": 8, "hidden": 256}}, {"name": "adam", "learning_rate": 1e-3}, 20.0),
        "num_train": 0 if full else 20_000,
        "num_images": 60_000 if full else 10_000,
        **({"files": given["dirty"]} if given.get("dirty") else {}),
    }
    masks = {
        "width": masked,
        "weights": [float(each) for each in given.get("weights", "2" if full else "0.5+2").split("+")],
        "training": training({"name": "mlp"}, {"name": "adam", "learning_rate": 0.05, "schedule": "cosine"}, 20.0 if full else 5.0, 256),
    }
    return ConfigDict(
        {
            "experiment": "widths",
            "name": "mnist_widths",
            "seed": int(given.get("seed", "0")),
            "smoke": "smoke" in given,
            "data": {"name": "mnist", "ood": {FASHION: {}}},
            "ensemble": {"num_members": 10, "training": training(network, descent, 100.0 if full else 12.0)},
            "widths": [float(each) for each in widths],
            "ambiguous": ambiguous,
            **({"masks": masks} if masked in widths else {}),
            "reference": {width: dict(zip(COLUMNS, numbers)) for width, numbers in PAPER.items()},
        }
    ).lock()
