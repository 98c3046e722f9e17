"""Test-wide settings: eight fake CPU devices, rank promotion raises, float64 on request."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Enables float64 for one test."""
    with jax.enable_x64(True):
        yield
