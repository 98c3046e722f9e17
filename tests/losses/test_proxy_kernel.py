"""The kernel's polynomial tables against mpmath."""

import mpmath as mp
import pytest

from edd.losses import proxy_tables

mp.mp.dps = 50


def trigamma(b, t):
    return (mp.psi(1, 1 + b) / t - 1) / t


def digamma(b, t):
    return mp.psi(0, 1 + b) + mp.log(t)


def entropy(b, t):
    return mp.loggamma(1 + b) - b * mp.psi(0, 1 + b) + 1 + b + mp.log(t) / 2


def bregman(b, t):
    return mp.psi(1, 1) / 2 if abs(b) < 1e-20 else (b * mp.psi(0, 1 + b) - mp.loggamma(1 + b)) / b**2


@pytest.mark.parametrize("bits, tolerance", [(32, 1.5e-7), (64, 2e-13)])
@pytest.mark.parametrize("function", [trigamma, digamma, entropy, bregman])
def test_tables_reach_their_accuracy(function, bits, tolerance):
    shift = mp.mpf(proxy_tables.SHIFT)
    table = [mp.mpf(c) for c in getattr(proxy_tables, function.__name__.upper())[bits]]
    low, high = (1 / (1 + shift), 1 / (shift - 0.5)) if function is bregman else (mp.mpf(10) ** -12, 1 / shift)
    for i in range(301):
        t = low + (high - low) * i / 300
        b = 1 / t - shift
        assert abs(mp.fsum(c * t**n for n, c in enumerate(table)) - function(b, t)) < tolerance
