"""Implicit ensembles by tiles: does what the positions of one pre-trained network disagree on say more than its own entropy?

Reproduces: figures 3 and 6 and tables 3 to 6 of arXiv 2409.02628 (ResNets, Wide ResNet, ResNeXt, MaxViT on ImageNet-v2) as a
protocol. The default is a CIFAR-10 network with 8 x 8 positions against CIFAR-100 and SVHN. Expected of the paper's networks: mutual
information of 2 x 2 to 7 x 7 tiles orders predictions slightly better than the network's entropy (negative acceptance covariance of the
accuracy, ResNet-152: 0.050 and 0.054 against 0.046).
Argument: comma-separated: resnet20 (default), resnet32, resnet44, resnet56 (CIFAR-10); weights=FILE (torch's names, .safetensors or
torch.save; random weights without it), widest=S (tiles from 2 x 2 to S x S, default 8), smoke.
Needs: TFDS directories cifar10, cifar100, svhn_cropped (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/tiles.py:resnet56,weights=FILE --workdir runs/tiles --data_dir DIR
"""

from ml_collections import ConfigDict

DEPTHS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # the public CIFAR weights were trained with these


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    names = [name for name in given if name in DEPTHS] or ["resnet20"]
    unknown = set(given) - set(DEPTHS) - {"weights", "widest", "smoke"}
    if unknown or len(names) > 1 or not given.get("widest", "8").isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are one of {', '.join(DEPTHS)}, weights=FILE, widest=S, smoke")
    options = {"depth": DEPTHS[names[0]], **({"weights": given["weights"]} if given.get("weights") else {})}
    return ConfigDict(
        {
            "experiment": "tiles",
            "name": f"tiles_{names[0]}",
            "seed": 0,
            "smoke": "smoke" in given,
            "data": {"name": "cifar10", "ood": {"cifar100": {}, "svhn_cropped": {}}},
            "model": {"name": "cifar_resnet", "options": options},
            "sizes": list(range(2, int(given.get("widest", "8")) + 1)),
            "weightings": ["uniform", "per_input_lse"],
            "temperatures": ["one", "fitted"],
            **IMAGENET,
        }
    ).lock()
