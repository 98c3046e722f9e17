"""Whole experiments: `run` a config, or `distill` an ensemble that exists as arrays, whatever framework made it.

Imported on first use, so that merging reports does not load the training stack.
"""

import importlib

_HOMES = {"Student": "arrays", "distill": "arrays", "load_student": "arrays", "run": "launch"}

__all__ = ["Student", "distill", "load_student", "run"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
