"""Utterances as arrays: log-mel features of one padded length, standardised, and the ids of what was said.

`Split.inputs` is {"source": features [N, T, F] float32, "length": frames that count [N] int32, "target": [N, L] int32}, the inputs of
`edd.models.speech`; target and `Split.labels` are as in `edd.data.translation`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edd.data import log_mel
from edd.data.base import Split
from edd.data.speech import Utterance
from edd.data.translation import END, IGNORED, START, pad

BLOCK = 32  # utterances in one pass


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """How sound becomes features: utterances at unit power, log-mel frames, every filter standardised over the utterance.

    Attributes:
      rate: samples a second.
      num_filters: F.
      window, hop: in samples.
      floor: least power of a filter; of a waveform of unit power.
    """

    rate: int = 16_000
    num_filters: int = 80
    window: int = 400
    hop: int = 160
    floor: float = 1e-2

    def __post_init__(self):
        if min(self.rate, self.num_filters, self.hop) < 1 or self.window < 2 or not self.floor > 0:
            raise ValueError(f"rate, num_filters and hop must be at least 1, window at least 2 and floor above 0, got {self}")

    def frames(self, seconds: float) -> int:
        """Whole frames in so many seconds."""
        return int(log_mel.num_frames(round(seconds * self.rate), self.window, self.hop))


class Heard(NamedTuple):
    """Utterances after the front end.

    Attributes:
      features: [N, T, F] float32, 0 at padding.
      frames: [N] int32, those that count.
      texts: what was said.
      left_out: how many utterances were too long.
    """

    features: np.ndarray
    frames: np.ndarray
    texts: tuple[str, ...]
    left_out: int


def listen(utterances: Iterable[Utterance], front_end: FrontEnd, seconds: float, *, too_long: str = "error") -> Heard:
    """Features of utterances, which are read once and in order.

    Args:
      utterances: N >= 1.
      front_end: how.
      seconds: room for each; at least a window.
      too_long: "error" names the first utterance that does not fit, "drop" leaves it out.

    Raises:
      ValueError: options out of range; no utterance is left; one shorter than a window, not finite or too long, by its number.

    Examples:
      >>> heard = listen([Utterance("one", np.ones(16000, np.float32))], FrontEnd(num_filters=4), 1.5)
      >>> heard.features.shape, heard.frames.tolist(), heard.texts
      ((1, 148, 4), [98], ('one',))
    """
    if too_long not in ("error", "drop") or front_end.frames(seconds) < 1:
        raise ValueError(f'too_long must be "error" or "drop" and seconds at least a window, got {too_long!r} and {seconds}')
    room, left_out, kept = round(seconds * front_end.rate), 0, []
    function, numbered = jax.jit(functools.partial(_features, front_end)), enumerate(utterances)
    while block := list(itertools.islice(numbered, BLOCK)):
        sound, lengths, texts = np.zeros((BLOCK, room), np.float32), np.zeros(BLOCK, np.int32), []
        for number, each in block:
            _check(number, each, front_end)
            if len(each.samples) > room:
                if too_long == "error":
                    own = len(each.samples) / front_end.rate
                    raise ValueError(f"utterance {number} lasts {own:.2f} s, more than the {seconds} s there is room for")
                left_out += 1
                continue
            sound[len(texts), : len(each.samples)] = each.samples
            lengths[len(texts)] = len(each.samples)
            texts.append(each.text)
        features, frames = jax.device_get(function(sound, lengths))
        kept.append((features[: len(texts)], frames[: len(texts)], texts))
    if not sum(len(texts) for *_, texts in kept):
        raise ValueError(f"no utterance is left: there is none, or all {left_out} last more than {seconds} s")
    features, frames = (np.concatenate(each) for each in list(zip(*kept))[:2])
    return Heard(features, frames, tuple(text for *_, texts in kept for text in texts), left_out)


def encode(heard: Heard, vocabulary, target_length: int, *, too_long: str = "error") -> Split:
    """Inputs {"source", "length", "target"} and labels.

    Args:
      heard: N utterances.
      vocabulary: `speech.Words` or `translation.Subwords`.
      target_length: L >= 2, start or end id included.
      too_long: "error" names the first transcript that does not fit, "drop" leaves it out.

    Raises:
      ValueError: options out of range, a transcript too long, an unknown word, no utterance left.
    """
    if target_length < 2 or too_long not in ("error", "drop"):
        raise ValueError(f'target_length must be at least 2 and too_long "error" or "drop", got {target_length} and {too_long!r}')
    rows = [vocabulary.encode(text) for text in heard.texts]
    kept = np.array([len(row) < target_length or too_long == "error" for row in rows], bool)
    if not kept.any():
        raise ValueError(f"no utterance is left: every transcript has {target_length} tokens or more")
    rows = [row for row, fits in zip(rows, kept) if fits]
    labels = pad([[*row, END] for row in rows], target_length, fill=IGNORED, what="transcript")
    target = pad([[START, *row] for row in rows], target_length, what="transcript")
    features, frames = (heard.features, heard.frames) if kept.all() else (heard.features[kept], heard.frames[kept])
    return Split({"source": features, "length": frames, "target": target}, labels)


def _check(number: int, utterance: Utterance, front_end: FrontEnd) -> None:
    if len(utterance.samples) < front_end.window:
        raise ValueError(f"utterance {number} has {len(utterance.samples)} samples, fewer than a window of {front_end.window}")
    if not np.isfinite(utterance.samples).all():
        raise ValueError(f"utterance {number} has samples that are not finite")


def _features(front_end: FrontEnd, sound: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    power = (sound**2).sum(-1) / jnp.maximum(lengths, 1)
    sound = sound / jnp.sqrt(jnp.where(power > 0, power, 1))[:, None]
    options = {"num_filters": front_end.num_filters, "window": front_end.window, "hop": front_end.hop, "floor": front_end.floor}
    found = log_mel.log_mel(sound, front_end.rate, **options)
    frames = log_mel.num_frames(lengths, front_end.window, front_end.hop)
    return log_mel.standardise(found, frames), frames
