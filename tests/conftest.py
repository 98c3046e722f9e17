"""Test-wide settings: eight fake CPU devices, compiled programs kept for the session, rank promotion raises, float64 on request."""

import atexit
import os
import shutil
import tempfile

# Compiling takes most of the time, and runs that resume or start processes of their own compile the same programs again. One folder for
# each worker, since JAX does not write its files in one piece.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="edd-compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def unoptimised(request):
    """Whole runs are compiled without optimisations, which would take longer than their few steps; smoke runs are with them."""
    if request.path.parent.name not in ("experiments", "launch", "multiprocess"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    yield
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    """Enables float64 for one test."""
    with jax.enable_x64(True):
        yield
