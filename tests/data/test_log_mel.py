"""Log-mel features against a discrete Fourier transform written out, and the two mel scales at their fixed points."""

import jax.numpy as jnp
import numpy as np
import pytest

from edd.data import log_mel


def slow(waveform, rate, filters, window, hop, low, high, scale, floor):
    """One frame, one frequency, one filter at a time."""
    size = 1
    while size < window:
        size *= 2
    to_mel = lambda f: float(log_mel.hertz_to_mel(f, scale))  # noqa: E731
    edges = [float(log_mel.mel_to_hertz(to_mel(low) + (to_mel(high) - to_mel(low)) * i / (filters + 1), scale)) for i in range(filters + 2)]
    rows, start = [], 0
    while start + window <= len(waveform):
        frame = [waveform[start + n] * np.sin(np.pi * n / window) ** 2 for n in range(window)]
        power = [abs(sum(v * np.exp(-2j * np.pi * k * n / size) for n, v in enumerate(frame))) ** 2 for k in range(size // 2 + 1)]
        row = []
        for left, centre, right in zip(edges, edges[1:], edges[2:]):
            total = 0.0
            for k, value in enumerate(power):
                f = k * rate / size
                if left < f < right:
                    total += value * ((f - left) / (centre - left) if f <= centre else (right - f) / (right - centre))
            row.append(np.log(max(total * (2 / (right - left) if scale == "slaney" else 1), floor)))
        rows.append(row)
        start += hop
    return np.array(rows)


@pytest.mark.parametrize("scale", log_mel.SCALES)
def test_equals_the_slow_transform(x64, scale):
    waveform = np.random.default_rng(0).normal(size=(2, 130)) * np.array([[1.0], [0.01]])
    options = {"window": 50, "hop": 20, "low": 50.0, "high": 3000.0, "scale": scale, "floor": 1e-4}
    found = log_mel.log_mel(jnp.asarray(waveform), 8000.0, num_filters=6, **options)
    expected = np.stack([slow(row, 8000.0, 6, **options) for row in waveform])
    assert found.shape == (2, 5, 6) == (2, log_mel.num_frames(130, 50, 20), 6)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    single = log_mel.log_mel(jnp.asarray(waveform, jnp.float32), 8000.0, num_filters=6, **options)
    np.testing.assert_allclose(single, expected, atol=2e-4)


def test_a_tone_lights_its_own_filter():
    tone = jnp.sin(2 * jnp.pi * 1500.0 * jnp.arange(4000) / 16_000.0)
    found = log_mel.log_mel(tone, num_filters=40)
    edges = log_mel.mel_to_hertz(np.linspace(log_mel.hertz_to_mel(20.0), log_mel.hertz_to_mel(8000.0), 42))
    centre = edges[1:-1][np.asarray(found).argmax(-1)]
    assert np.all(np.abs(centre - 1500.0) < 100)


def test_the_scales_at_their_fixed_points():
    np.testing.assert_allclose(log_mel.hertz_to_mel([0.0, 700.0]), [0.0, 2595 * np.log10(2)])
    np.testing.assert_allclose(log_mel.hertz_to_mel([0.0, 500.0, 1000.0, 6400.0], "slaney"), [0.0, 7.5, 15.0, 42.0])
    for scale in log_mel.SCALES:
        hertz = np.array([0.0, 60.0, 999.0, 1001.0, 7999.0])
        np.testing.assert_allclose(log_mel.mel_to_hertz(log_mel.hertz_to_mel(hertz, scale), scale), hertz, atol=1e-9)


def test_slaney_filters_have_area_one():
    filters = log_mel.filterbank(10, 4096, 16_000.0, scale="slaney")
    np.testing.assert_allclose(filters.sum(1) * 16_000.0 / 4096, 1.0, rtol=2e-2)


def test_frames_are_counted():
    assert [log_mel.num_frames(n, 50, 20) for n in (0, 49, 50, 69, 70)] == [0, 0, 1, 1, 2]
    assert log_mel.num_frames(np.array([10, 70]), 50, 20).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "bark"}, "scale must be one of htk, slaney, got 'bark'"),
        ({"high": 9000.0}, "0 <= low < high <= 8000.0 Hz"),
        ({"num_filters": 0}, "num_filters must be at least 1"),
        ({"floor": 0.0}, "floor positive"),
        ({"window": 5000}, "at least one window of 5000 samples"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        log_mel.log_mel(jnp.zeros(1000), **options)
