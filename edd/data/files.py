"""Writing files whole."""

import os
import pathlib
import tempfile


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes `content` to `path` through a temporary file and `os.replace`: a failure leaves the old file as it was.

    Each call has a temporary file of its own, so that of several writers at once the last one wins. Folders are made as needed.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
