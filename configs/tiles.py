"""Implicit ensembles by tiles: does what the positions of one pre-trained network disagree on say more than its own entropy?

Reproduces: figures 3 and 6 and tables 3 to 6 of arXiv 2409.02628 (ResNet-152, Wide ResNet-101-2 and ResNeXt-101-64x4d with 7 x 7 positions,
MaxViT with 16 x 16, on ImageNet-v2); their numbers stand in the report below ours. Expected of the paper's networks: mutual information of
2 x 2 to 7 x 7 tiles orders predictions slightly better than the network's entropy (negative acceptance covariance of the accuracy,
ResNet-152: 0.050 and 0.054 against 0.046). The default is a CIFAR-10 network with 8 x 8 positions against CIFAR-100 and SVHN.
Argument: comma-separated: one of resnet20 (default), resnet32, resnet44, resnet56 (CIFAR-10); mobilenet_v2 (TensorFlow's, BatchNorm folded
in; on a folder of photographs and their corruptions); resnet50, resnet152, wide_resnet101_2, resnext101_64x4d (torchvision's), maxvit_tiny,
maxvit_small, maxvit_base, maxvit_large, maxvit_xlarge (timm's, 512 pixels) on ImageNet-v2 against ImageNet-A, -O, -R and -C;
weights=FILE (torch's names, .safetensors or torch.save; random weights without it), photographs=FOLDER (of mobilenet_v2, default
imagenet_sample in the data folder), widest=S (tiles from 2 x 2 to S x S), smoke.
Needs: TFDS directories cifar10, cifar100, svhn_cropped; or imagenet_v2, imagenet_a, imagenet_r, imagenet_o, imagenet2012_corrupted
(--data_dir or TFDS_DATA_DIR); an accelerator for ImageNet.
Command: python launch/run.py --config configs/tiles.py:resnet56,weights=FILE --workdir runs/tiles --data_dir DIR
"""

import csv
import pathlib

from ml_collections import ConfigDict

CIFAR = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56}
RESNETS = {  # backbone's options; shorter side before the crop of 224; the paper's name
    "resnet50": ({"depth": 50}, 232, ""),
    "resnet152": ({"depth": 152}, 232, "Resnet152-V2"),
    "wide_resnet101_2": ({"depth": 101, "width": 128}, 232, "Wide_Resnet101_2-V2"),
    "resnext101_64x4d": ({"depth": 101, "width": 4, "groups": 64}, 232, "Resnext101_64X4D"),
}
MAXVIT = {f"maxvit_{size}": size for size in ("tiny", "small", "base", "large", "xlarge")}  # the paper does not say which
MOBILENET = "mobilenet_v2"
NAMES = [*CIFAR, MOBILENET, *RESNETS, *MAXVIT]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # the public CIFAR weights were trained with these too
COVARIANCES = ("calibration error, bucket", "accuracy", "NLL")
WEIGHTINGS = {"Mutual Information": ["uniform"], "Weighted MI": ["per_input_lse", "per_input_sum", "global"]}


def paper(name: str) -> dict:
    """Rows of tables 3 to 6 for one of the paper's networks; weighted rows stand for every reading of the weights."""
    found: dict = {}
    with pathlib.Path(__file__).with_name("tiles_paper.csv").open() as file:
        for model, uncertainty, size, *numbers in csv.reader(line for line in file if not line.startswith("#")):
            if model == name:
                rows = ["network"] if size == "Original" else [f"{size} {each}" for each in WEIGHTINGS[uncertainty]]
                found |= {row: {f"negative covariance, {what}": float(each) for what, each in zip(COVARIANCES, numbers)} for row in rows}
    return found


def photographs(folder: str) -> dict:
    """A folder of images for MobileNetV2, and the same images corrupted."""
    options = {"folder": folder, "image_size": 224, "resize": 224}
    shifts = ("gaussian_noise", "gaussian_blur", "contrast")
    shifted = {each: {"source": "image_folder", **options, "corruption": each, "severity": 5} for each in shifts}
    own = {"mean": [128 / 255] * 3, "std": [128 / 255] * 3, "first_class": 1}  # (x - 128) / 128; class 0 is the background
    return {"data": {"name": "image_folder", "options": options, "ood": shifted}, "shared": list(shifts), **own}


def imagenet(image_size: int, resize: int, squash: bool, small: bool) -> dict:
    """ImageNet-v2 and what it is to be told from; at 64 pixels for a smoke run."""
    size = {"image_size": 64, "resize": 64} if small else {"image_size": image_size, "resize": resize}
    size |= {"squash": squash, "interpolation": "bicubic" if squash else "bilinear"}
    others = {name: dict(size) for name in ("imagenet_a", "imagenet_o", "imagenet_r")}
    ready = {**size, "resize": 0 if image_size == 224 else size["resize"]}  # ImageNet-C's images have 224 pixels already
    others["imagenet_c"] = {"source": "imagenet2012_corrupted/gaussian_noise_3", "split": "validation", **ready}
    data = {"name": "imagenet_v2/matched-frequency", "test_split": "test", "options": size, "ood": others}
    return {"data": data, "shared": ["imagenet_a", "imagenet_r", "imagenet_c"]}


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    names = [name for name in given if name in NAMES] or ["resnet20"]
    unknown = set(given) - set(NAMES) - {"weights", "photographs", "widest", "smoke"}
    if unknown or len(names) > 1 or not given.get("widest", "8").isdigit():
        raise ValueError(
            f"unknown argument {arg!r}: known are one of {', '.join(NAMES)}, weights=FILE, photographs=FOLDER, widest=S, smoke"
        )
    name, small, weightings, side = names[0], "smoke" in given, ["uniform", "per_input_lse", "per_input_sum", "global"], 7
    if name in CIFAR:
        model, side, weightings = {"name": "cifar_resnet", "options": {"depth": CIFAR[name]}}, 8, ["uniform", "per_input_lse"]
        rest = {"data": {"name": "cifar10", "ood": {"cifar100": {}, "svhn_cropped": {}}}, **IMAGENET}
    elif name == MOBILENET:
        model = {"name": MOBILENET, "options": {"batch_norm": False, "padding": "same"}}
        rest = photographs(given.get("photographs") or "imagenet_sample")
    elif name in RESNETS:
        options, resize, printed = RESNETS[name]
        model = {"name": "resnet", "options": options}
        rest = {**imagenet(224, resize, False, small), "reference": paper(printed), **IMAGENET}
    else:
        model, side = {"name": "maxvit", "options": {"size": MAXVIT[name], "image_size": 512}}, 16
        rest = {**imagenet(512, 512, True, small), "reference": paper("Timm-Maxvit"), "mean": [0.5] * 3, "std": [0.5] * 3}
    if given.get("weights"):
        model["options"]["weights"] = given["weights"]
    if small and name not in CIFAR:
        side = 2
        if name == MOBILENET:
            for options in (rest["data"]["options"], *rest["data"]["ood"].values()):
                options |= {"image_size": 64, "resize": 64}
    return ConfigDict(
        {
            "experiment": "tiles",
            "name": f"tiles_{name}",
            "seed": 0,
            "smoke": small,
            "model": model,
            "sizes": list(range(2, int(given.get("widest", side)) + 1)),
            "weightings": weightings,
            "temperatures": ["one", "fitted"],
            **rest,
        }
    ).lock()
