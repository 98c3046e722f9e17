"""One line for what a user can mend, a traceback for what only a programmer can."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading
from edd.experiments import errors

def run():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    raise {error}

errors.tell(run, show_traceback={show})
"""


@pytest.mark.parametrize(
    "error,show,line,traceback",
    [
        ("OSError('the disk is full')", False, "error: the disk is full", False),
        ("ValueError('wrong value')", False, "error: wrong value", False),
        ("FloatingPointError('replica 2 at step 7')", False, "error: replica 2 at step 7", False),
        ("ValueError('wrong value')", True, "ValueError: wrong value", True),
        ("ImportError('text needs tokenizers: pip install it')", False, "error: text needs tokenizers: pip install it", False),
        ("ImportError('no module')", False, "ImportError: no module", True),
        ("RuntimeError('a bug')", False, "RuntimeError: a bug", True),
    ],
)
def test_an_error_is_told_last_and_threads_are_quiet(error, show, line, traceback):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(error=error, show=show)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == line
    assert ("Traceback" in done.stderr) is traceback and ("ZeroDivisionError" in done.stderr) is show
