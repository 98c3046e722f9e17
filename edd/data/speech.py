"""Spoken digits joined into strings: waveforms of one length with their masks, held-out speakers, noise, and the words said.

Recordings are files DIGIT_SPEAKER_TAKE.wav (8 kHz, 16 bit, mono). `Split.inputs` is {"source": waveforms [N, T] float32 in [-1, 1],
"length": samples [N] int32, "target": [N, L] int32}; target and `Split.labels` are as in `edd.data.translation`, with the digits' words as
ids 4 to 13.
"""

import pathlib
import re
import wave
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edd.data.base import Split
from edd.data.translation import END, IGNORED, START, lines, pad

RATE = 8000  # samples a second
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIRST_WORD = 4  # id of "zero"; 0 to 3 are padding, start, end and unknown
VOCABULARY = FIRST_WORD + len(WORDS)
TEST_TAKES = 5  # takes 0 to 4 are the official test part


class Recording(NamedTuple):
    """One spoken digit; `samples` [T] float32 in [-1, 1]."""

    digit: int
    speaker: str
    take: int
    samples: np.ndarray


class Utterance(NamedTuple):
    """What was said and its sound; `text` are words separated by spaces."""

    text: str
    samples: np.ndarray


def read_wave(file: str | pathlib.Path, rate: int | None = RATE) -> np.ndarray:
    """Samples [T] float32 in [-1, 1] of a 16-bit file; several channels are averaged.

    Raises:
      FileNotFoundError: no such file; ValueError: not a WAV file of 16-bit samples at `rate` (None: at any), or empty.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: a WAV file is expected there")
    try:
        with wave.open(str(file)) as source:
            width, own_rate, channels = source.getsampwidth(), source.getframerate(), source.getnchannels()
            data = source.readframes(source.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file} must be a WAV file: {error}") from error
    if width != 2 or (rate is not None and own_rate != rate):
        raise ValueError(f"{file} must hold 16-bit samples at {rate or 'any'} Hz, got {8 * width}-bit at {own_rate} Hz")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels).mean(1) / 32768
    if not samples.size:
        raise ValueError(f"{file} holds no sample")
    return samples.astype(np.float32)


def read_digits(folder: str | pathlib.Path) -> list[Recording]:
    """Every DIGIT_SPEAKER_TAKE.wav of a folder, sorted by name.

    Raises:
      FileNotFoundError: there is none; ValueError: a name of another form; else as `read_wave`.
    """
    files = sorted(pathlib.Path(folder).expanduser().glob("*.wav"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no recording: files DIGIT_SPEAKER_TAKE.wav are expected there")
    found = []
    for file in files:
        match = re.fullmatch(r"(\d)_(\w+)_(\d+)", file.stem)
        if not match:
            raise ValueError(f"{file.name}: the name must be DIGIT_SPEAKER_TAKE.wav")
        found.append(Recording(int(match[1]), match[2], int(match[3]), read_wave(file)))
    return found


def select(recordings: Sequence[Recording], *, part: str, held_out: Sequence[str]) -> list[Recording]:
    """ "train" (known speakers, takes from 5), "test" (known speakers, takes 0 to 4) or "unseen" (held-out speakers, takes 0 to 4).

    Raises:
      ValueError: an unknown part or speaker, or nothing left.
    """
    if part not in ("train", "test", "unseen"):
        raise ValueError(f'part must be "train", "test" or "unseen", got {part!r}')
    speakers = {each.speaker for each in recordings}
    unknown = sorted(set(held_out) - speakers)
    if unknown:
        raise ValueError(f"held_out must name speakers of the recordings, {', '.join(sorted(speakers))}; got {', '.join(unknown)}")
    chosen = [
        each for each in recordings if (each.speaker in held_out) == (part == "unseen") and (each.take < TEST_TAKES) == (part != "train")
    ]
    if not chosen:
        raise ValueError(f"no recording is left for part {part!r} with {', '.join(held_out) or 'no speaker'} held out")
    return chosen


def join(
    recordings: Sequence[Recording],
    num_examples: int,
    *,
    digits: tuple[int, int] = (2, 5),
    gap: tuple[float, float] = (0.02, 0.1),
    seed: int = 0,
) -> list[Utterance]:
    """Random strings of digits, each spoken by one speaker, with silence between them.

    Args:
      recordings: what to draw from, with replacement.
      num_examples: N >= 1.
      digits: fewest and most digits of a string, >= 1.
      gap: shortest and longest silence between two digits, in seconds, >= 0.
      seed: names the draw.

    Raises:
      ValueError: options out of range, no recording.

    Examples:
      >>> tone = Recording(7, "a", 0, np.ones(80, np.float32))
      >>> join([tone], 1, digits=(2, 2), gap=(0.01, 0.01))[0].text
      'seven seven'
    """
    if num_examples < 1 or not recordings:
        raise ValueError(f"num_examples must be at least 1 and recordings not empty, got {num_examples} and {len(recordings)}")
    if not 1 <= digits[0] <= digits[1] or not 0 <= gap[0] <= gap[1]:
        raise ValueError(f"digits must be (fewest >= 1, most) and gap (shortest >= 0, longest), got {digits} and {gap}")
    speakers = sorted({each.speaker for each in recordings})
    of = {speaker: [each for each in recordings if each.speaker == speaker] for speaker in speakers}
    rng, found = np.random.default_rng([seed, 4]), []
    for _ in range(num_examples):
        own = of[speakers[rng.integers(len(speakers))]]
        chosen = [own[index] for index in rng.integers(0, len(own), rng.integers(digits[0], digits[1] + 1))]
        parts = [chosen[0].samples]
        for each in chosen[1:]:
            parts += [np.zeros(round(rng.uniform(*gap) * RATE), np.float32), each.samples]
        found.append(Utterance(" ".join(WORDS[each.digit] for each in chosen), np.concatenate(parts)))
    return found


def add_noise(utterances: Sequence[Utterance], snr: float, seed: int) -> list[Utterance]:
    """Utterances with white noise at a signal-to-noise ratio `snr` in dB (of mean powers); silence stays silence.

    Examples:
      >>> noisy = add_noise([Utterance("one", np.ones(80000, np.float32))], 20.0, 0)[0]
      >>> round(float(((noisy.samples - 1) ** 2).mean()), 3)
      0.01
    """
    if not np.isfinite(snr):
        raise ValueError(f"snr must be finite, in dB, got {snr}")
    found = []
    for number, each in enumerate(utterances):
        scale = np.sqrt(np.mean(each.samples.astype(np.float64) ** 2) / 10 ** (snr / 10))
        noise = scale * np.random.default_rng([seed, number, 5]).standard_normal(len(each.samples))
        found.append(each._replace(samples=(each.samples + noise).astype(np.float32)))
    return found


def read_folder(folder: str | pathlib.Path, transcripts: str = "transcripts.tsv", *, rate: int | None = RATE) -> list[Utterance]:
    """Recordings NAME.wav with a file of lines NAME, tab, transcript: meetings, another language, any speech of one's own.

    Raises:
      ValueError: a line of another form; FileNotFoundError: a recording is missing; else as `read_wave`.
    """
    folder, found = pathlib.Path(folder).expanduser(), []
    for number, line in enumerate(lines(folder / transcripts), 1):
        parts = line.split("\t")
        if line and len(parts) != 2:
            raise ValueError(f"{transcripts} line {number}: must be a recording's name, a tab and its transcript, got {line[:60]!r}")
        if line:
            found.append(Utterance(parts[1], read_wave(folder / f"{parts[0].removesuffix('.wav')}.wav", rate)))
    return found


def words_to_ids(text: str) -> list[int]:
    """Ids of digits' words; ValueError for another word.

    Examples:
      >>> words_to_ids("one zero")
      [5, 4]
    """
    unknown = [word for word in text.split() if word not in WORDS]
    if unknown:
        raise ValueError(f"text must be words of digits, got {unknown[0]!r}")
    return [FIRST_WORD + WORDS.index(word) for word in text.split()]


def ids_to_words(ids: Sequence[int]) -> str:
    """The words up to the first end id; ids that are no word are left out.

    Examples:
      >>> ids_to_words([5, 4, 2, 9])
      'one zero'
    """
    kept = []
    for token in map(int, ids):
        if token == END:
            break
        if FIRST_WORD <= token < VOCABULARY:
            kept.append(WORDS[token - FIRST_WORD])
    return " ".join(kept)


def encode(utterances: Sequence[Utterance], num_samples: int, target_length: int) -> Split:
    """Utterances of digits as inputs {"source", "length", "target"} and labels.

    Args:
      utterances: N >= 1.
      num_samples: T, room for each waveform; what follows it is 0.
      target_length: L >= 2, start or end id included.

    Raises:
      ValueError: an utterance or its transcript too long, a word that is no digit.
    """
    if not utterances or target_length < 2:
        raise ValueError(f"utterances must not be empty and target_length be at least 2, got {len(utterances)} and {target_length}")
    source = np.zeros((len(utterances), num_samples), np.float32)
    for number, each in enumerate(utterances):
        if len(each.samples) > num_samples:
            raise ValueError(f"utterance {number} has {len(each.samples)} samples, more than the {num_samples} there is room for")
        source[number, : len(each.samples)] = each.samples
    rows = [words_to_ids(each.text) for each in utterances]
    labels = pad([[*row, END] for row in rows], target_length, fill=IGNORED, what="transcript")
    target = pad([[START, *row] for row in rows], target_length, what="transcript")
    lengths = np.array([len(each.samples) for each in utterances], np.int32)
    return Split({"source": source, "length": lengths, "target": target}, labels)
