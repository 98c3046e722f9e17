"""How a script tells its user what went wrong: one line instead of a wall of tracebacks."""

import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable

import jax

EXPECTED = (ValueError, TypeError, OSError, FloatingPointError)


def tell(run: Callable[[], None], *, show_traceback: bool = False) -> None:
    """Calls `run`; an error that a user can mend is printed as one line, "error: ...", and ends the process with status 1.

    Orbax's threads narrate a failed save a hundred times before the training loop raises it once: they are kept quiet, and so
    is the end of the process. Of several processes one that fails ends at once: the others wait for it in a collective, and an
    orderly exit would wait for them.

    Args:
      run: the whole work of a script.
      show_traceback: leave everything loud and show where in the code the error came from.
    """
    if not show_traceback:
        _quiet_threads()
    try:
        run()
    except Exception as error:
        missing = isinstance(error, ImportError) and "pip install" in str(error)  # ours, which say what to install
        expected = (isinstance(error, EXPECTED) or missing) and not show_traceback
        if not expected:
            traceback.print_exc()
        print(f"error: {error}" if expected else f"{type(error).__name__}: {error}", file=sys.stderr)
        if not (expected or jax.distributed.is_initialized()):
            sys.exit(1)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _quiet_threads() -> None:
    shown = sys.excepthook

    def unless_a_storage_thread(kind, error, trace):  # TensorStore's callbacks meet the event loop of a failed save closed
        if threading.current_thread() is threading.main_thread() and str(error) != "Event loop is closed":
            shown(kind, error, trace)

    sys.excepthook = unless_a_storage_thread
    threading.excepthook = lambda arguments: None
    warnings.showwarning = lambda message, category, *_: print(f"{category.__name__}: {message}", file=sys.stderr, flush=True)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
