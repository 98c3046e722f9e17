"""Log-mel features of speech in JAX: frames, Hann window, power spectrum, triangular filters on the mel scale, logarithm."""

import jax.numpy as jnp
import numpy as np

from edd.typing import Array, Float, Int

SCALES = ("htk", "slaney")
SLANEY_BREAK, SLANEY_STEP = 1000.0, 200.0 / 3  # Hz where Slaney's scale turns logarithmic, Hz per mel below
SLANEY_LOG_STEP = np.log(6.4) / 27  # ln of the ratio per mel above


def hertz_to_mel(hertz, scale: str = "htk"):
    """Frequency in mel: HTK's 2595 log10(1 + f / 700), or Slaney's, linear to 1 kHz and logarithmic above.

    Examples:
      >>> round(float(hertz_to_mel(1000.0)), 1), round(float(hertz_to_mel(1000.0, "slaney")), 1)
      (1000.0, 15.0)
    """
    _check_scale(scale)
    hertz = np.asarray(hertz, np.float64)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hertz / 700.0)
    above = SLANEY_BREAK / SLANEY_STEP + np.log(np.maximum(hertz, SLANEY_BREAK) / SLANEY_BREAK) / SLANEY_LOG_STEP
    return np.where(hertz < SLANEY_BREAK, hertz / SLANEY_STEP, above)


def mel_to_hertz(mel, scale: str = "htk"):
    """The inverse of `hertz_to_mel`, in Hz.

    Examples:
      >>> round(float(mel_to_hertz(hertz_to_mel(440.0))), 6)
      440.0
    """
    _check_scale(scale)
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    corner = SLANEY_BREAK / SLANEY_STEP
    return np.where(mel < corner, mel * SLANEY_STEP, SLANEY_BREAK * np.exp(SLANEY_LOG_STEP * (np.maximum(mel, corner) - corner)))


def filterbank(num_filters: int, fft_size: int, sample_rate: float, *, low: float = 20.0, high: float = 0.0, scale: str = "htk"):
    """Triangular filters [F, fft_size // 2 + 1], equally spaced in mel, neighbours meeting at their centres; unitless.

    HTK's have peak 1; Slaney's have area 1 (2 over their width in Hz).

    Args:
      num_filters: F >= 1.
      fft_size: of the spectrum, >= 2.
      sample_rate: samples per second, > 0.
      low, high: outer edges of the first and last filter in Hz, 0 <= low < high <= half the sample rate; 0: that half.
      scale: "htk" or "slaney".

    Returns:
      numpy array, float64. A filter narrower than the spacing of the spectrum may be zero everywhere.

    Raises:
      ValueError: values out of range.

    References:
      Young et al., "The HTK Book", section 5.4; Slaney 1998, "Auditory Toolbox".

    Examples:
      >>> filterbank(3, 16, 8000.0, low=0.0).shape
      (3, 9)
    """
    high = high or sample_rate / 2
    if num_filters < 1 or fft_size < 2:
        raise ValueError(f"num_filters must be at least 1 and fft_size at least 2, got {num_filters} and {fft_size}")
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(f"low and high must satisfy 0 <= low < high <= {sample_rate / 2} Hz, got {low} and {high}")
    edges = mel_to_hertz(np.linspace(hertz_to_mel(low, scale), hertz_to_mel(high, scale), num_filters + 2), scale)
    bins = np.arange(fft_size // 2 + 1) * sample_rate / fft_size
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.maximum(np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)), 0.0)
    return filters * 2 / (right - left) if scale == "slaney" else filters


def num_frames(num_samples, window: int, hop: int):
    """Frames that lie wholly inside `num_samples` samples (an integer or an array of them), 0 if none does.

    Examples:
      >>> num_frames(400, 400, 160), num_frames(399, 400, 160), num_frames(16000, 400, 160)
      (1, 0, 98)
    """
    frames = (num_samples - window) // hop + 1
    return frames * (frames > 0)


def log_mel(
    waveform: Float[Array, "*B N"],
    sample_rate: float = 16_000.0,
    *,
    num_filters: int = 80,
    window: int = 400,
    hop: int = 160,
    low: float = 20.0,
    high: float = 0.0,
    scale: str = "htk",
    floor: float = 1e-10,
) -> Float[Array, "*B T F"]:
    """Natural logarithm of the mel-filtered power spectrum of each frame.

    Frame t holds the samples from t * hop on, times a periodic Hann window, zero-padded to the next power of two; frames that do not
    lie wholly inside the waveform are left out. Cost: one FFT per frame and a product with the filters.

    Args:
      waveform: samples, usually in [-1, 1]. Padding at the end fills whole frames of its own: `num_frames` counts those that matter.
      sample_rate: samples per second.
      num_filters: F.
      window, hop: in samples, >= 2 and >= 1 (at 16 kHz 25 and 10 ms by default).
      low, high, scale: see `filterbank`.
      floor: least power, > 0: the logarithm is of max(power, floor).

    Returns:
      Features, T = `num_frames`(N).

    Raises:
      ValueError: a waveform shorter than a window, values out of range.

    References:
      Davis & Mermelstein 1980, "Comparison of Parametric Representations" (mel filters).

    Examples:
      >>> log_mel(jnp.zeros(16000)).shape, round(float(log_mel(jnp.zeros(400))[0, 0]), 3)
      ((98, 80), -23.026)
    """
    if window < 2 or hop < 1 or not floor > 0:
        raise ValueError(f"window must be at least 2, hop at least 1 and floor positive, got {window}, {hop} and {floor}")
    waveform = jnp.asarray(waveform)
    samples = waveform.shape[-1] if waveform.ndim else 0
    if samples < window:
        raise ValueError(f"waveform must have at least one window of {window} samples on its last axis, got shape {waveform.shape}")
    size = 1 << (window - 1).bit_length()
    filters = filterbank(num_filters, size, sample_rate, low=low, high=high, scale=scale)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    places = np.arange(num_frames(samples, window, hop))[:, None] * hop + np.arange(window)[None]
    frames = waveform[..., places]
    frames = frames * jnp.asarray(hann, frames.dtype).reshape((1,) * (frames.ndim - 1) + (-1,))
    spectrum = jnp.fft.rfft(frames, size)
    power = spectrum.real**2 + spectrum.imag**2
    return jnp.log(jnp.maximum(power @ jnp.asarray(filters.T, power.dtype), floor))


def standardise(features: Float[Array, "B T F"], frames: Int[Array, " B"]) -> Float[Array, "B T F"]:
    """Each filter of each utterance to mean 0 and variance 1 over its valid frames; 0 at padding and where nothing varies.

    What a microphone or a room multiplies the spectrum by is gone then.

    Args:
      features: logarithms, as from `log_mel`.
      frames: that count, >= 0.

    References:
      Viikki & Laurila 1998, "Cepstral domain segmental feature vector normalization for noise robust speech recognition".

    Examples:
      >>> standardise(jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([2]))[0, :, 0].round(3).tolist()
      [-1.0, 1.0, 0.0]
    """
    mask = (jnp.arange(features.shape[1])[None] < frames[:, None])[..., None]
    count = jnp.maximum(frames, 1)[:, None, None].astype(features.dtype)
    centred = jnp.where(mask, features - jnp.where(mask, features, 0).sum(1, keepdims=True) / count, 0)
    return centred / jnp.sqrt((centred**2).sum(1, keepdims=True) / count + 1e-5)


def _check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
