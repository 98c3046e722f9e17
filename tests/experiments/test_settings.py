"""Settings are parsed once, strictly."""

import dataclasses

import pytest

from edd.experiments import settings

MODEL = {"name": "mlp", "options": {"widths": [8]}}


def minimal(**changes):
    training = {"model": MODEL, "epochs": 2}
    whole = {
        "name": "toy",
        "data": {"name": "digits"},
        "ensemble": {"num_members": 3, "training": training},
        "students": {"proxy": {"method": "proxy", "training": training}},
    }
    return {**whole, **changes}


def test_nested_dictionaries_become_frozen_dataclasses():
    parsed = settings.from_dict(settings.Settings, minimal())
    assert parsed.ensemble.training.epochs == 2.0 and isinstance(parsed.ensemble.training.epochs, float)
    assert parsed.students["proxy"].training.model.options == {"widths": [8]}
    with pytest.raises(AttributeError):
        parsed.seed = 3


@pytest.mark.parametrize(
    "change,message",
    [
        ({"sed": 1}, "unknown config key 'sed': did you mean 'seed'"),
        ({"data": {"name": "digits", "opd": {}}}, "unknown config key 'data.opd': did you mean 'data.o"),
        ({"data": {}}, "'data.name' is missing"),
        ({"seed": "one"}, "'seed' must be int"),
        ({"seed": True}, "'seed' must be int"),
        ({"seed": -1}, "seed must be in"),
        ({"data": 3}, "'data' must hold a mapping"),
        ({"ensemble": {"num_members": 0, "training": {"model": MODEL}}}, "num_members must be at least 1"),
        (
            {"students": {"p": {"method": "proxy", "training": {"model": MODEL, "epochs": 0.0}}}},
            "students.p.training.*epochs must be above 0",
        ),
        ({"students": {"p": {"method": "proxy", "training": {"model": MODEL, "on_nonfinite": "x"}}}}, "on_nonfinite must be one of"),
        ({"students": {"p": {"method": "proxy", "training": {"model": MODEL, "augment": "flip"}}}}, "targets='online'"),
    ],
)
def test_every_mistake_is_named_with_its_path(change, message):
    with pytest.raises(ValueError, match=message):
        settings.from_dict(settings.Settings, minimal(**change))


@dataclasses.dataclass(frozen=True)
class Lists:
    numbers: list[float] = dataclasses.field(default_factory=list)
    triples: list[list[int]] = dataclasses.field(default_factory=list)
    anything: list = dataclasses.field(default_factory=list)


def test_entries_of_lists_are_checked():
    found = settings.from_dict(Lists, {"numbers": (0, 0.5), "triples": [[1, 2, 3], (4,)], "anything": ["a", 1]})
    assert found == Lists([0.0, 0.5], [[1, 2, 3], [4]], ["a", 1]) and isinstance(found.numbers[0], float)
    for values, message in (
        ({"numbers": 0.5}, "config key 'numbers' must be a list, got 0.5"),
        ({"numbers": "0.5"}, "must be a list"),
        ({"numbers": [0.5, True]}, r"config key 'numbers\[1\]' must be float, got True"),
        ({"triples": [[1], [2, 0.5]]}, r"config key 'triples\[1\]\[1\]' must be int, got 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            settings.from_dict(Lists, values)


def test_values_become_what_a_hint_asks():
    assert settings.convert(tuple[int, ...] | None, [1, 2], "widths") == (1, 2)
    assert settings.convert(tuple[int, ...] | None, None, "widths") is None
    assert settings.convert(str | float, "dimension", "bandwidth") == "dimension"
    assert settings.convert(str | float, 2, "bandwidth") == 2.0
    assert settings.convert(tuple[tuple[int, ...], ...], [[1], [2, 3]], "stages") == ((1,), (2, 3))
    assert settings.convert(dict | None, {"a": 1}, "architecture") == {"a": 1}
    for hint, value, message in (
        (float, "hot", "'option' must be float, got 'hot'"),
        (float | None, "hot", "'option' must be float, got 'hot'"),
        (float, None, "must be float, got None"),
        (str | float, [1], "must be float"),
        (tuple[int, ...], 3, "must be a list, got 3"),
        (tuple[int, int], [1], "must have 2 elements"),
        (tuple[tuple[int, ...], ...], [[1], [2, "3"]], r"'option\[1\]\[1\]' must be int"),
    ):
        with pytest.raises(ValueError, match=message):
            settings.convert(hint, value, "option")


@pytest.mark.parametrize("smoothings", [[], [0.1, 0.1], [-0.1], [1.1], [float("nan")]], ids=str)
def test_smoothings_that_are_no_study(smoothings):
    with pytest.raises(ValueError, match="smoothings must"):
        settings.check_smoothings(smoothings)


def test_differences_lists_paths():
    assert settings.differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3, "d": 4}}) == ["b.c: 2 != 3", "b.d: '(absent)' != 4"]
