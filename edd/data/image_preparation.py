"""Downloading and preparing a TFDS image set on a machine without TensorFlow.

TFDS's own builders read their raw files and encode their images through TensorFlow. Both are two lines of Python: while a
set is prepared here its module sees a file opener in TensorFlow's place, and its images are handed on as PNG bytes.
"""

import contextlib
import io
import pathlib
import socket
import sys
import types
import urllib.parse
import urllib.request

import numpy as np


def prepare(builder, name: str, download: bool) -> None:
    """Downloads and prepares the image set of `builder` as array_record files.

    Args:
      builder: the TFDS builder; its folder does not exist yet.
      name: the set's name, for messages.
      download: False, or a machine that is not connected, raises.

    Raises:
      FileNotFoundError: the set is absent and was not downloaded, with the reason and what to do.
    """
    folder = pathlib.Path(builder.data_dir)
    absent = f"{name} is not in {folder}"
    todo = (
        "give data_dir (or TFDS_DATA_DIR) a folder that holds its TFDS directory in array_record format, "
        "or load it once with download=True on a connected machine"
    )
    if not download:
        raise FileNotFoundError(f"{absent} and download is off; {todo}")
    problem = _unreachable(builder)
    if problem:
        raise FileNotFoundError(f"{absent} and cannot be downloaded ({problem}); {todo}")
    generate = builder._generate_examples
    builder._generate_examples = lambda *args, **kwargs: _encoded(generate(*args, **kwargs))
    try:
        with _files_without_tensorflow(sys.modules[type(builder).__module__]):
            builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever TFDS, the network or the disk raised: the user needs one thing, how to go on
        raise FileNotFoundError(f"{absent} and preparing it failed ({type(error).__name__}: {error}); {todo}") from error
    finally:
        del builder._generate_examples


def _unreachable(builder) -> str:
    """Why the hosts of a set cannot be reached, or "": TFDS would retry for minutes before it says so."""
    if urllib.request.getproxies():
        return ""
    for host in sorted({urllib.parse.urlparse(url).hostname for url in builder.url_infos}):
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            return f"{host}: {error}"
    return ""


def _encoded(examples):
    from PIL import Image

    for key, example in examples:
        buffer = io.BytesIO()
        image = np.asarray(example["image"])
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=1)
        yield key, {**example, "image": buffer.getvalue()}


@contextlib.contextmanager
def _files_without_tensorflow(module):
    """Lets `module`, a TFDS builder's, open files through Python where it asks TensorFlow to."""
    names = [name for name in ("tf", "tensorflow") if hasattr(module, name)]
    saved = {name: module.__dict__[name] for name in names if name in module.__dict__}
    stand_in = types.SimpleNamespace(io=types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open)))
    for name in saved:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for name, value in saved.items():
            setattr(module, name, value)
