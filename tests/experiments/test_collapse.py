"""The failure signature: told below a tenth, silent above and where there is no such quantity."""

import warnings

import pytest

from edd.experiments import collapse


def test_a_warning_below_a_tenth_and_silence_above():
    with pytest.warns(collapse.CollapseWarning, match="boston, split 0: DLF has collapsed: it keeps 9.9 %"):
        collapse.warn("DLF", 0.099, "boston, split 0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for share in (0.1, 2.0, None):
            collapse.warn("DLF", share)
