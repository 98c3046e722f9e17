"""Tables of names in configs: what is bound is of its annotated type."""

import inspect

import pytest

from edd.experiments import build
from edd.experiments import settings as settings_lib

TABLES = {"METHODS": build.METHODS, "REGRESSION_METHODS": build.REGRESSION_METHODS, "SEQUENCE_METHODS": build.SEQUENCE_METHODS}


@pytest.mark.parametrize(("method", "table"), [(method, name) for name, table in TABLES.items() for method in table])
def test_every_option_of_every_method_is_checked(method, table):
    """An option of another type is a ValueError that names it; its own default is taken."""
    make = TABLES[table][method]
    parameters = inspect.signature(make, eval_str=True).parameters.values()
    options = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    assert options
    for name, default in options.items():
        assert build.bind(make, "method", {name: default}).keywords[name] == default
        with pytest.raises(ValueError, match=f"method: config key '{name}' must be"):
            build.bind(make, "method", {name: {}})


def test_lists_and_integers_become_what_is_asked():
    assert build.bind(build.MODELS["mlp"], "model", {"widths": [8, 4], "dropout": 0}).keywords == {"widths": (8, 4), "dropout": 0.0}
    assert build.bind(build.METHODS["dlf"], "method", {"bandwidth": 2}).keywords == {"bandwidth": 2.0}


def test_a_text_for_a_number_is_refused():
    model = settings_lib.Model("mlp", {"widths": [8, "wide"]})
    with pytest.raises(ValueError, match=r"model 'mlp': config key 'widths\[1\]' must be int, got 'wide'"):
        build.backbone(model)
    student = settings_lib.Student("end", settings_lib.Training(settings_lib.Model("mlp")), options={"temperature": "hot"})
    with pytest.raises(ValueError, match="method 'end': config key 'temperature' must be float, got 'hot'"):
        build.distiller(student, 2, 3, 1)
