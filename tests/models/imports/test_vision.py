"""Weights with torchvision's and timm's names: their logits, names one to one, both directions, and everything that does not fit.

The logits of the tiny networks below were made by torch (torchvision 0.28, timm 1.0.31) from the same weights; where torch is installed
they are made again.
"""

import dataclasses
import functools
import os
import pathlib
import zlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

from edd.data import sources
from edd.models.imports import safetensors, vision

pytest.importorskip("safetensors", reason="needs the package safetensors")
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def torch_resnet(block, **options):
    import torchvision

    family = torchvision.models.resnet
    return family.ResNet(getattr(family, block), [1, 1, 1, 1], num_classes=5, **options)


def torch_mobilenet():
    import torchvision

    settings = [[1, 16, 1, 1], [6, 24, 2, 2]]
    return torchvision.models.MobileNetV2(num_classes=5, width_mult=0.35, inverted_residual_setting=settings)


def torch_maxvit(global_pool="avg"):
    from timm.models import maxxvit

    shape = {"embed_dim": (32, 64), "depths": (1, 2), "block_type": ("M", "M"), "stem_width": 16, "head_hidden_size": 64}
    return maxxvit.MaxxVit(
        maxxvit.MaxxVitCfg(**shape, stem_bias=True, **maxxvit._tf_cfg()), img_size=96, num_classes=5, global_pool=global_pool
    )


def torch_cifar(shortcut):
    """He's network of 14 layers with the names of the published CIFAR weights."""
    import torch
    from torch import nn

    def conv(inputs, outputs, kernel, stride):
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.stride, self.pad = stride, (outputs - inputs) // 2
            self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
            self.conv2, self.bn2 = conv(outputs, outputs, 3, 1), nn.BatchNorm2d(outputs)
            if shortcut == "B" and stride != 1:
                self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            if shortcut == "B" and self.stride != 1:
                return (self.shortcut(x) + y).relu()
            return (nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad)) + y).relu()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = conv(3, 16, 3, 1), nn.BatchNorm2d(16)
            self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1))
            self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1))
            self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1))
            self.linear = nn.Linear(64, 5)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
            return self.linear(torch.mean(x, (2, 3)))

    return Network()


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    options: dict
    image_size: int
    torch: Callable
    logits: list


CASES = {
    "resnext": Case(
        "resnet", {"blocks": (1, 1, 1, 1), "groups": 2, "width": 8}, 64,
        functools.partial(torch_resnet, "Bottleneck", groups=2, width_per_group=8),
        [[-7.57365, -25.74952, 13.41196, 1.44392, -12.74046], [-3.21289, -20.82422, 10.32186, -2.14780, -11.45376]],
    ),
    "resnet_18": Case(
        "resnet", {"depth": 18, "blocks": (1, 1, 1, 1)}, 64, functools.partial(torch_resnet, "BasicBlock"),
        [[3.63909, 14.82185, -30.51896, 7.92932, 2.92523], [2.57185, 15.85746, -30.43921, 11.61420, 4.14358]],
    ),
    "mobilenet_v2": Case(
        "mobilenet_v2", {"width": 0.35, "stages": ((1, 16, 1, 1), (6, 24, 2, 2))}, 64, torch_mobilenet,
        [[2.49464, -5.36124, 3.63584, 0.69150, -1.14104], [2.75475, -5.33964, 3.68141, 0.71247, -1.24207]],
    ),
    "maxvit": Case(
        "maxvit", {"image_size": 96, "channels": (32, 64), "depths": (1, 2), "stem": 16}, 96, torch_maxvit,
        [[-0.07037, 0.00888, 1.53535, -0.18094, 0.73294], [-0.07916, -0.10327, 1.55015, -0.17264, 0.78082]],
    ),
    "cifar_resnet_a": Case(
        "cifar_resnet", {"depth": 14}, 16, functools.partial(torch_cifar, "A"),
        [[-26.07327, 10.15673, 12.60914, 27.66960, -15.16855], [-23.92394, 8.15653, 8.19245, 22.05308, -14.93354]],
    ),
    "cifar_resnet_b": Case(
        "cifar_resnet", {"depth": 14, "shortcut": "B"}, 16, functools.partial(torch_cifar, "B"),
        [[-17.44380, 9.87488, 1.06537, 20.16548, -15.47581], [-15.17973, 11.96461, 8.61716, 14.25130, -17.37284]],
    ),
}  # fmt: skip
MAXVIT_POSITION = [[-0.31571, 0.14622, 1.31456, -0.19038, 0.55488], [-0.33384, 0.02047, 1.28850, -0.41437, 0.82544]]  # row 3, column 5
PUBLISHED = {  # options -> entries of the state dict, counters included
    "resnet50": ("resnet", {"depth": 50}, 320),
    "resnet152": ("resnet", {"depth": 152}, 932),
    "wide_resnet101_2": ("resnet", {"depth": 101, "width": 128}, 626),
    "resnext101_64x4d": ("resnet", {"depth": 101, "width": 4, "groups": 64}, 626),
    "mobilenet_v2": ("mobilenet_v2", {}, 314),
    "maxvit_tiny_tf_224": ("maxvit", {}, 560),
}


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor that depends on its name alone, of a scale that keeps activations near 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1 and name.endswith(("weight", "running_var")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 0.2 if len(shape) == 1 else 1.0 if "table" in name else np.sqrt(2 / np.prod(shape[1:]))
    return rng.normal(scale=scale, size=shape).astype(np.float32)


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


def with_weights(network):
    """A torch network with `weights`, in evaluation mode."""
    import torch

    state = {name: torch.tensor(weights(name, tuple(each.shape))) for name, each in network.state_dict().items() if each.ndim}
    network.load_state_dict(state, strict=True)
    return network.eval()


def tensors_of(case: Case) -> dict[str, np.ndarray]:
    return {name: weights(name, entry.shape) for name, entry in vision.names(case.name, 5, **case.options).items()}


def loaded(case: Case, folder: pathlib.Path):
    safetensors.write(folder / "tiny.safetensors", tensors_of(case))
    return vision.load(folder / "tiny.safetensors", case.name, positions=True, **case.options)


def run(model, variables, inputs):
    return jit(functools.partial(model.apply, train=False))(variables, inputs)[0]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A small CIFAR network's case, and a folder for its files; nothing is compiled."""
    return Case("cifar_resnet", {"depth": 8}, 8, None, []), tmp_path_factory.mktemp("cifar")


def test_logits_are_torchs(case, tmp_path):
    model, variables = loaded(case, tmp_path)
    outputs = run(model, variables, images(case.image_size))
    np.testing.assert_allclose(outputs.logits, case.logits, atol=1e-4, rtol=1e-4)
    if case.name == "maxvit":  # timm's own head per position (global_pool="")
        side = case.image_size // 8
        np.testing.assert_allclose(outputs.positions[:, 3 * side + 5], MAXVIT_POSITION, atol=1e-4)
    else:
        np.testing.assert_allclose(outputs.positions.mean(1), outputs.logits, atol=1e-4, rtol=1e-4)


def test_torch_gives_the_same_logits_and_takes_what_is_saved(case, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed; its logits of the same weights are above")
    if case.name != "cifar_resnet":
        pytest.importorskip("timm" if case.name == "maxvit" else "torchvision", reason="timm and torchvision are not installed")
    network = with_weights(case.torch())
    with torch.no_grad():
        theirs = network(torch.tensor(images(case.image_size)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(theirs, case.logits, atol=1e-4, rtol=1e-4)
    torch.save(network.state_dict(), tmp_path / "tiny.pth")
    _, variables = vision.load(tmp_path / "tiny.pth", case.name, **case.options)
    vision.save(tmp_path / "back.safetensors", variables, case.name, **case.options)
    back = {name: torch.tensor(each) for name, each in safetensors.read(tmp_path / "back.safetensors").items()}
    case.torch().load_state_dict(back, strict=True)
    assert all(torch.equal(back[name], each) for name, each in network.state_dict().items() if each.ndim)


def test_torch_gives_the_same_logits_at_every_position(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed; its logits of the same weights are above")
    pytest.importorskip("timm", reason="timm is not installed")
    case = CASES["maxvit"]
    with torch.no_grad():
        theirs = with_weights(torch_maxvit(global_pool=""))(torch.tensor(images(96)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(theirs[:, :, 3, 5], MAXVIT_POSITION, atol=1e-4)
    outputs = run(*loaded(case, tmp_path), images(96))
    np.testing.assert_allclose(outputs.positions, theirs.reshape(2, 5, -1).transpose(0, 2, 1), atol=1e-4)


@pytest.mark.parametrize("published", PUBLISHED)
def test_names_of_published_networks(published):
    name, options, entries = PUBLISHED[published]
    table = vision.names(name, 1000, **options)
    assert len(table) + sum(each.endswith("running_mean") for each in table) == entries
    try:
        import timm
        import torch
        import torchvision
    except ImportError:
        return
    make = getattr(torchvision.models, published, None) or functools.partial(timm.create_model, published)
    with torch.device("meta"):
        theirs = {each: tuple(tensor.shape) for each, tensor in make().state_dict().items() if tensor.ndim}
    assert {each: entry.shape for each, entry in table.items()} == theirs


def test_folded_batch_norm_gives_the_same_logits(tmp_path):
    """A network whose BatchNorm is folded into its convolutions by hand, layer by layer in the order of execution."""
    case, folded = CASES["mobilenet_v2"], {}
    tensors = tensors_of(case)
    convolutions = [name for name in tensors if tensors[name].ndim == 4]
    place = lambda name: [int(part) for part in name.split(".") if part.isdigit()]  # noqa: E731
    for index, name in enumerate(sorted(convolutions, key=place)):
        prefix, number = name.removesuffix(".weight").rsplit(".", 1)
        norm = f"{prefix}.{int(number) + 1}"  # torch's next module
        scale = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"] + 1e-5)
        folded[f"layers.{index}.weight"] = tensors[name] * scale[:, None, None, None]
        folded[f"layers.{index}.bias"] = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale
    last = f"layers.{len(convolutions)}"
    folded |= {f"{last}.weight": tensors["classifier.1.weight"][:, :, None, None], f"{last}.bias": tensors["classifier.1.bias"]}
    folded["layers.depthwise_stride_relu6"] = np.zeros((len(convolutions) + 1, 3), np.int32)
    safetensors.write(tmp_path / "folded.safetensors", folded)
    model, variables = vision.load(tmp_path / "folded.safetensors", "mobilenet_v2", **case.options, batch_norm=False)
    assert set(variables) == {"params"}
    np.testing.assert_allclose(run(model, variables, images(64)).logits, case.logits, atol=1e-4, rtol=1e-4)


def test_what_is_saved_is_loaded(cifar):
    case, folder = cifar
    tensors = tensors_of(case)
    model, variables = loaded(case, folder)
    assert model.templates(variables)[0].shape == (5, 64), "as many outputs as the file has"
    vision.save(folder / "back.safetensors", variables, case.name, **case.options)
    back = safetensors.read(folder / "back.safetensors")
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
    np.testing.assert_array_equal(variables["params"]["Conv_1"]["kernel"][2, 1, 3, 4], tensors["layer1.0.conv1.weight"][4, 3, 2, 1])
    np.testing.assert_array_equal(variables["batch_stats"]["BatchNorm_2"]["var"], tensors["layer1.0.bn2.running_var"])


def test_every_misfit_is_listed(cifar):
    case, folder = cifar
    tensors = {**tensors_of(case), "surprise": np.zeros(1, np.float32), "bn1.num_batches_tracked": np.zeros((), np.int64)}
    tensors["layer2.0.bn1.running_mean"] = np.zeros(3, np.float32)
    del tensors["conv1.weight"]
    safetensors.write(folder / "odd.safetensors", tensors)
    with pytest.raises(ValueError) as caught:
        vision.load(folder / "odd.safetensors", "cifar_resnet", 7, depth=8)
    text = str(caught.value)
    for part in (
        "missing: conv1.weight;", "unexpected: surprise;", "layer2.0.bn1.running_mean (3,) instead of (32,)",
        "linear.bias (5,) instead of (7,)", "linear.weight (5, 64) instead of (7, 64)",
    ):  # fmt: skip
        assert part in text
    assert "num_batches_tracked" not in text


def test_a_file_without_the_last_layer_lists_it(cifar):
    case, folder = cifar
    tensors = {name: each for name, each in tensors_of(case).items() if not name.startswith("linear")}
    safetensors.write(folder / "headless.safetensors", tensors)
    with pytest.raises(ValueError, match="missing: linear.bias, linear.weight$"):
        vision.load(folder / "headless.safetensors", "cifar_resnet", depth=8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vision.names("vgg", 10), "name must be one of resnet, maxvit, mobilenet_v2, cifar_resnet, got 'vgg'"),
        (lambda: vision.names("resnet", 10, depth=51), "depth must be one of 18, 34, 50, 101, 152"),
        (lambda: vision.names("cifar_resnet", 10, pre_activation=True), "pre_activation must be False"),
    ],
)
def test_what_has_no_names_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def weights_file(name: str) -> pathlib.Path:
    folder = os.environ.get("TFDS_DATA_DIR", "")
    path = pathlib.Path(folder).expanduser() / "weights" / name
    if not folder or not path.is_file():
        pytest.skip(f"TFDS_DATA_DIR has no weights/{name}: put the published weights there")
    return path


def test_published_cifar_network_classifies_real_images():
    path = weights_file("cifar_resnet20.safetensors")
    try:
        split = sources.load("cifar10", "test[:2%]")
    except (ValueError, FileNotFoundError) as error:
        pytest.skip(f"CIFAR-10 is not prepared: {error}")
    mean, std = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
    model, variables = vision.load(path, "cifar_resnet", 10, depth=20, positions=True)
    outputs = run(model, variables, (split.inputs / np.float32(255) - mean) / std)
    assert outputs.positions.shape == (200, 64, 10)
    np.testing.assert_allclose(outputs.positions.mean(1), outputs.logits, atol=1e-4)
    assert (outputs.logits.argmax(-1) == split.labels).mean() >= 0.9  # 0.9173 on all 10,000


def test_published_mobilenet_classifies_real_images():
    path = weights_file("mobilenet_v2.safetensors")
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    folder = path.parents[1] / "imagenet_sample"
    if not (folder / "classes.tsv").is_file():
        pytest.skip("TFDS_DATA_DIR has no imagenet_sample")
    rows = [line.split("\t") for line in (folder / "classes.tsv").read_text().splitlines()[::31]]
    photographs = np.stack([np.asarray(image.open(folder / wnid / f"{wnid}_0.JPEG").convert("RGB"), np.float32) for wnid, *_ in rows])
    labels = np.array([int(label) for _, label, _ in rows])
    model, variables = vision.load(path, "mobilenet_v2", batch_norm=False, padding="same")
    logits = run(model, variables, (photographs - 128) / 128).logits
    assert logits.shape == (len(rows), 1001)  # class 0 is the background
    assert (logits.argmax(-1) - 1 == labels).mean() >= 0.75  # 0.872 on all 500
