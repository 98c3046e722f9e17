"""The failure signature of distribution distillation: a student whose functions hardly vary where its teachers' do."""

import warnings

LEAST_SHARE = 0.1


class CollapseWarning(UserWarning):
    """A student kept less than a tenth of its teachers' variance (or of any other measure of their disagreement)."""


def told(student: str, share: float | None, what: str = "variance") -> str | None:
    """A sentence where a student has collapsed, else None; also for a student that has no such quantity.

    Args:
      student: its name.
      share: its predictive variance between functions over the teachers' (in classification: its mutual information over theirs).
      what: the name of that quantity.

    Examples:
      >>> told("DLF", 0.7) is None
      True
      >>> told("LBE", 0.002)
      "LBE has collapsed: it keeps 0.2 % of its teachers' variance"
    """
    if share is None or not share < LEAST_SHARE:
        return None
    return f"{student} has collapsed: it keeps {100 * share:.1f} % of its teachers' {what}"


def warn(student: str, share: float | None, where: str = "", what: str = "variance") -> None:
    """Warns (`CollapseWarning`) where `told` has something to tell."""
    sentence = told(student, share, what)
    if sentence:
        warnings.warn(f"{where}: {sentence}" if where else sentence, CollapseWarning, stacklevel=2)
