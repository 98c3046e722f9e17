"""MaxViT: exact parameter counts, the two ways of grouping positions, relative positions, and its head at every position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edd.models import maxvit

COUNTS = {  # at 224, 384 and 512 pixels, 1000 classes
    "tiny": (30_916_528, 30_977_008, 31_049_584),
    "small": (68_927_956, 69_018_676, 69_127_540),
    "base": (119_467_708, 119_653_468, 119_876_380),
    "large": (211_785_560, 212_033_240, 212_330_456),
    "xlarge": (474_951_952, 475_323_472, 475_769_296),
}
IMAGE_SIZES = (224, 384, 512)
TABLE = "relative_position_bias_table"


def shapes(size: str, image_size: int):
    image = jnp.zeros((1, image_size, image_size, 3))
    return jax.eval_shape(maxvit.make(1000, size=size, image_size=image_size).init, jax.random.key(0), image)["params"]


def number(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("size", "image_size"),
    [("tiny", 224), ("tiny", 384), ("tiny", 512), ("small", 384), ("base", 512), ("large", 224), ("xlarge", 512)],
)
def test_parameter_counts(size, image_size):
    """Sizes are traced at one image size, the smallest at all three; of the others the tables of relative positions alone differ."""
    params = shapes(size, image_size)
    assert number(params) == COUNTS[size][IMAGE_SIZES.index(image_size)]
    tables = [leaf for path, leaf in jax.tree.flatten_with_path(params)[0] if path[-1].key == TABLE]
    assert len(tables) == 2 * sum(maxvit.SIZES[size].depths)
    assert {leaf.shape[1:] for leaf in tables} == {(2 * (image_size // 32) - 1,) * 2}
    for other, expected in zip(IMAGE_SIZES, COUNTS[size]):
        changed = sum(leaf.shape[0] * (2 * (other // 32) - 1) ** 2 - leaf.size for leaf in tables)
        assert number(params) + changed == expected


def test_parts_of_the_smallest():
    params = shapes("tiny", 224)
    assert number(params["stem"]) == 38_848
    assert [number(params[f"stages_{index}"]) for index in range(4)] == [290_792, 1_114_064, 11_165_456, 17_530_688]
    assert {number(block) for block in params["stages_0"].values()} == {145_396}
    assert number([params[name] for name in ("head_norm", "head_hidden", "output")]) == 776_680
    assert len(jax.tree.leaves(params)) == 458


def test_windows_hold_neighbours_and_grids_hold_positions_spread_over_the_image():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    seen = {}
    for grid in (False, True):
        back = maxvit.grouped(lambda groups, grid=grid: seen.setdefault(grid, groups), x, 2, grid)
        np.testing.assert_array_equal(back, x)
    assert seen[False].shape == seen[True].shape == (1, 9, 4, 1)
    np.testing.assert_array_equal(seen[False][0, 1, :, 0], [2, 3, 8, 9])
    np.testing.assert_array_equal(seen[True][0, 1, :, 0], [1, 4, 19, 22])


def test_relative_positions_depend_on_the_offset_from_query_to_key():
    module, window = maxvit.RelativePosition(1, 3), 3
    table = jnp.arange(25.0).reshape(1, 5, 5)
    scores = module.apply({"params": {TABLE: table}})
    assert scores.shape == (1, 9, 9)
    for query in range(9):
        for key in range(9):
            down, right = key // window - query // window, key % window - query % window
            assert scores[0, query, key] == table[0, down + 2, right + 2]


def test_images_of_another_size_fit_where_the_windows_do():
    model = maxvit.make(3, image_size=64, channels=(8,), depths=(1,), stem=4, head_dim=4, positions=True)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    outputs, _ = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, jnp.zeros((2, 16, 24, 3)))
    assert outputs.positions.shape == (2, 4 * 6, 3) and outputs.penultimate.shape == (2, 8)
    with pytest.raises(ValueError, match="multiples of the window 2, got 2x3: give the images' size as image_size"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 12, 3)))
