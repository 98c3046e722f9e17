"""Trainable parameters against the published counts, by shape evaluation alone."""

import jax
import jax.numpy as jnp
import pytest

from edd.models import alexnet, cifar_resnet, cnn, inception_v4, mlp, mobilenet_v2, resnet, wide_resnet
from edd.models.cifar_resnet import HE_WIDTHS, WIDE_WIDTHS


def count(model, shape=(32, 32, 3)):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("depth", "widen", "num_classes", "expected"),
    [
        (28, 1, 10, 369_498), (28, 1, 100, 375_348), (28, 10, 10, 36_479_194), (28, 10, 100, 36_536_884),
        (28, 2, 10, 1_467_610), (16, 8, 10, 10_961_370), (40, 4, 10, 8_949_210),
    ],
)  # fmt: skip
def test_wide_resnet(depth, widen, num_classes, expected):
    assert count(wide_resnet.make(num_classes, depth=depth, widen=widen)) == expected


@pytest.mark.parametrize(
    ("depth", "option_a", "option_b"),
    [(20, 269_722, 272_474), (32, 464_154, 466_906), (44, 658_586, 661_338), (56, 853_018, 855_770), (110, 1_727_962, 1_730_714)],
)
def test_he_resnets(depth, option_a, option_b):
    assert count(cifar_resnet.make(10, depth=depth, shortcut="A")) == option_a
    assert count(cifar_resnet.make(10, depth=depth, shortcut="B")) == option_b


@pytest.mark.parametrize(("shape", "expected"), [((24, 24, 3), 1_068_298), ((32, 32, 3), 1_756_426), ((28, 28, 3), 1_387_786)])
def test_alexnet(shape, expected):
    assert count(alexnet.make(10), shape) == expected


def test_he_resnet_with_a_hundred_classes():
    assert count(cifar_resnet.make(100, shortcut="A")) == 858_868
    assert count(cifar_resnet.make(100, shortcut="B")) == 861_620


@pytest.mark.parametrize(
    ("widths", "num_classes", "expected"),
    [(WIDE_WIDTHS, 10, 3_407_674), (WIDE_WIDTHS, 100, 3_419_284), (HE_WIDTHS, 10, 855_962), (HE_WIDTHS, 100, 861_812)],
)
def test_pre_activation_resnet_56(widths, num_classes, expected):
    assert count(cifar_resnet.make(num_classes, widths=widths, pre_activation=True)) == expected


@pytest.mark.parametrize(
    ("options", "per_stage", "total", "tensors"),
    [
        ({"depth": 18}, None, 11_689_512, None),
        ({"depth": 34}, None, 21_797_672, None),
        ({"depth": 50}, (215_808, 1_219_584, 7_098_368, 14_964_736), 25_557_032, 161),
        ({"depth": 101}, None, 44_549_160, 314),
        ({"depth": 152}, (215_808, 2_339_840, 40_613_888, 14_964_736), 60_192_808, 467),
        ({"depth": 101, "width": 128}, (634_368, 3_482_624, 78_739_456, 41_971_712), 126_886_696, 314),
        ({"depth": 101, "width": 4, "groups": 64}, (393_216, 2_257_920, 51_769_344, 26_976_256), 83_455_272, 314),
        ({"depth": 50, "width": 128}, None, 68_883_240, 161),
        ({"depth": 50, "width": 4, "groups": 32}, None, 25_028_904, 161),
        ({"depth": 101, "width": 8, "groups": 32}, None, 88_791_336, 314),
    ],
)
def test_imagenet_residual_networks(options, per_stage, total, tensors):
    variables = jax.eval_shape(resnet.make(1000, **options).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    params = variables["params"]
    assert size(params) == total
    if per_stage:
        found = [size([tree for name, tree in params.items() if name.startswith(f"layer{stage}_")]) for stage in (1, 2, 3, 4)]
        assert found == list(per_stage)
    if tensors:
        assert len(jax.tree.leaves(params)) == tensors


def test_running_statistics_of_resnet_50():
    shapes = jax.eval_shape(resnet.make(1000).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["batch_stats"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) + 53 == 53_173  # torch also counts a counter for each of 53 norms


def test_resnet_50_for_cifar():
    assert count(resnet.make(10, stem="cifar")) == 23_520_842


def test_mobilenet_v2():
    assert count(mobilenet_v2.make(1000)) == 3_504_872
    assert count(mobilenet_v2.make(1001, batch_norm=False)) == 3_504_872 + 1281 - 17_056  # one of BatchNorm's two vectors, 17,056 in all


def test_dense_networks():
    assert count(mlp.make(10, widths=(1200, 1200)), (28, 28, 1)) == 2_395_210
    assert count(mlp.make(10, widths=(800, 800)), (28, 28, 1)) == 1_276_810
    assert count(mlp.make(3, widths=(4,), layer_norm=True), (2,)) == (2 * 4 + 4) + 2 * 4 + (4 * 3 + 3)


def test_small_cnn():
    dense = 7 * 7 * 32 * 128 + 128 + 128 * 10 + 10
    assert count(cnn.make(10), (28, 28, 1)) == (25 * 16 + 16) + (9 * 16 * 32 + 32) + dense
    with_norm = (25 * 16 + 2 * 16) + (9 * 16 * 32 + 2 * 32) + 7 * 7 * 32 * 128 + 2 * 128 + 128 * 10 + 10
    assert count(cnn.make(10, batch_norm=True), (28, 28, 1)) == with_norm


@pytest.mark.parametrize(
    ("num_classes", "auxiliary", "with_scale", "without"),
    [
        (1000, False, 42_679_816, 42_648_232), (1000, True, 46_039_280, 46_006_800),
        (1001, False, 42_681_353, 42_649_769), (1001, True, 46_041_586, 46_009_106),
    ],
)  # fmt: skip
def test_inception_v4(num_classes, auxiliary, with_scale, without):
    make = lambda scale: inception_v4.make(num_classes, auxiliary=auxiliary, scale=scale)  # noqa: E731
    assert count(make(True), (299, 299, 3)) == with_scale
    assert count(make(False), (299, 299, 3)) == without


def test_inception_v4_has_149_convolutions():
    shapes = jax.eval_shape(inception_v4.make(1000).init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
    kernels = [leaf for leaf in jax.tree.leaves(shapes["params"]) if leaf.ndim == 4]
    assert len(kernels) == 149 and sum(leaf.size for leaf in kernels) == 41_079_648
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["batch_stats"])) == 2 * 31_584
