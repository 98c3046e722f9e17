"""Colours are stable per row, curves are thinned to what can be seen, and both file kinds are written the same each time."""

import numpy as np
import pytest

from edd.experiments import style
from edd.experiments.predictions import Row


def test_colours_by_group_and_order():
    rows = [
        Row("Single", 0, {}, group="single"),
        Row("Ensemble", 0, {}, group="ensemble"),
        Row("b", 0, {}),
        Row("a", 0, {}),
        Row("b", 1, {}),
    ]
    found = style.colours(rows)
    assert found["Ensemble"] == style.GROUP_COLOURS["ensemble"] and found["Single"] == style.GROUP_COLOURS["single"]
    assert (found["b"], found["a"]) == style.STUDENT_COLOURS[:2]
    many = style.colours([Row(str(index), 0, {}) for index in range(20)])
    assert len(many) == 20


@pytest.mark.parametrize("size", [1, 3, 400, 5000])
def test_thin_keeps_the_ends(size):
    x, y = style.thin(np.arange(size), np.arange(size) ** 2)
    assert len(x) == len(y) <= 400 and x[0] == 0 and x[-1] == size - 1
    np.testing.assert_array_equal(y, x**2)


def test_panels_and_save(tmp_path):
    def draw(figure, axes):
        for axis in axes:
            axis.plot([0, 1], [0, 1])

    figures = [style.panels(draw, 3, columns=2) for _ in range(2)]
    assert len(figures[0].axes) == 3
    first, second = (style.save(figure, tmp_path / str(index), "x") for index, figure in enumerate(figures))
    assert [path.name for path in first] == ["x.png", "x.svg"]
    assert first[0].read_bytes()[:4] == b"\x89PNG" and first[1].read_text() == second[1].read_text()
