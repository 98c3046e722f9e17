"""Settings are parsed once, strictly."""

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


def test_differences_lists_paths():
    assert settings.differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3, "d": 4}}) == ["b.c: 2 != 3", "b.d: '(absent)' != 4"]
