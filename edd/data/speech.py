"""Speech as utterances, a waveform and what was said: spoken digits joined into strings, TFDS sets, folders of recordings, noise.

Recordings of digits are files DIGIT_SPEAKER_TAKE.wav (8 kHz). Files are WAV with 16-bit samples, read with the standard library alone;
FLAC, MP3 and other widths are refused with what to do. `edd.data.listening` makes arrays of utterances.
"""

import pathlib
import re
import wave
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edd.data.translation import END, lines

RATE = 8000  # samples a second
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIRST_WORD = 4  # 0 to 3 are padding, start, end and unknown
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".sph")  # of recordings; only the first is read
TEST_TAKES = 5  # takes 0 to 4 are the official test part


class Recording(NamedTuple):
    """One spoken digit; `samples` [T] float32 in [-1, 1]."""

    digit: int
    speaker: str
    take: int
    samples: np.ndarray


class Utterance(NamedTuple):
    """What was said and its sound; `text` are words separated by spaces, `samples` [T] float32 in [-1, 1] or int16."""

    text: str
    samples: np.ndarray


def read_wave(file: str | pathlib.Path, rate: int | None = RATE) -> np.ndarray:
    """Samples [T] float32 in [-1, 1] of a 16-bit file; several channels are averaged.

    Raises:
      FileNotFoundError: no such file; ValueError: not a WAV file of 16-bit samples at `rate` (None: at any), or empty.
    """
    file = pathlib.Path(file)
    if file.suffix.lower() != ".wav":
        raise ValueError(f"{file} must be a WAV file: other formats cannot be read, convert it to 16-bit WAV first")
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
    speed: tuple[float, float] = (1.0, 1.0),
    rate: int = RATE,
    seed: int = 0,
) -> list[Utterance]:
    """Random strings of digits, each spoken by one speaker, with silence between them.

    Args:
      recordings: what to draw from, with replacement.
      num_examples: N >= 1.
      digits: fewest and most digits of a string, >= 1.
      gap: shortest and longest silence between two digits, in seconds, >= 0.
      speed: slowest and fastest playback of a string's recordings, > 0; pitch and formants move along: voices that nobody has.
      rate: of the recordings, samples a second.
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
    if not 0 < speed[0] <= speed[1]:
        raise ValueError(f"speed must be (slowest > 0, fastest), got {speed}")
    speakers = sorted({each.speaker for each in recordings})
    of = {speaker: [each for each in recordings if each.speaker == speaker] for speaker in speakers}
    rng, found = np.random.default_rng([seed, 4]), []
    for _ in range(num_examples):
        own = of[speakers[rng.integers(len(speakers))]]
        chosen = [own[index] for index in rng.integers(0, len(own), rng.integers(digits[0], digits[1] + 1))]
        factor = rng.uniform(*speed) if speed[0] < speed[1] else speed[0]
        parts = [faster(chosen[0].samples, factor)]
        for each in chosen[1:]:
            parts += [np.zeros(round(rng.uniform(*gap) * rate), np.float32), faster(each.samples, factor)]
        found.append(Utterance(" ".join(WORDS[each.digit] for each in chosen), np.concatenate(parts)))
    return found


def faster(samples: np.ndarray, factor: float) -> np.ndarray:
    """Samples [T] played `factor` times as fast, by linear interpolation; at least one is left.

    Examples:
      >>> faster(np.array([0.0, 1.0, 2.0, 3.0], np.float32), 2.0).tolist()
      [0.0, 2.0]
    """
    if factor == 1.0:
        return samples
    places = np.arange(max(1, round(len(samples) / factor))) * factor
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def invented(seed: int, rate: int = RATE) -> list[Recording]:
    """Tones in place of digits, 0.2 s each, by two speakers in two takes of either part, for runs without data.

    Examples:
      >>> sorted({each.speaker for each in invented(0)}), len(invented(0)[0].samples)
      (['a', 'b'], 1600)
    """
    rng, time = np.random.default_rng([seed, 6]), np.arange(rate // 5) / rate
    return [
        Recording(digit, speaker, take, np.sin(time * 2 * np.pi * (200 + 100 * digit + 40 * rng.uniform())).astype(np.float32) / 2)
        for speaker in "ab"
        for digit in range(len(WORDS))
        for take in (0, 1, TEST_TAKES, TEST_TAKES + 1)
    ]


def add_noise(utterances: Iterable[Utterance], snr: float, seed: int) -> list[Utterance]:
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

    NAME may end in .wav and may hold folders; recordings that no line names are not read.

    Raises:
      ValueError: a line of another form, a recording named twice; FileNotFoundError: a recording is missing; else as `read_wave`.
    """
    folder, found = pathlib.Path(folder).expanduser(), {}
    for number, line in enumerate(lines(folder / transcripts), 1):
        parts = line.split("\t")
        if line and len(parts) != 2:
            raise ValueError(f"{transcripts} line {number}: must be a recording's name, a tab and its transcript, got {line[:60]!r}")
        if line:
            name = parts[0] if pathlib.Path(parts[0]).suffix.lower() in SUFFIXES else f"{parts[0]}.wav"
            if name in found:
                raise ValueError(f"{transcripts} line {number}: {name} has a transcript already")
            found[name] = Utterance(parts[1], read_wave(folder / name, rate))
    return list(found.values())


def read_tfds(name: str, split: str, *, rate: int, data_dir: str | None = None, count: int = 0) -> Iterator[Utterance]:
    """The first `count` utterances (0: all) of a set of TFDS with "speech" and "text", such as librispeech, prepared in `data_dir`.

    Samples stay int16. They are read one by one: a hundred hours would take 12 GB.

    Raises:
      ValueError: another sampling rate than `rate`, examples without sound or text.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    own = (builder.info.metadata or {}).get("sample_rate") or getattr(builder.info.features.get("speech"), "sample_rate", None)
    if own and int(own) != rate:
        raise ValueError(f"{name} must be sampled at {rate} Hz, got {own} Hz")
    examples = builder.as_data_source(split=split)
    for number in range(min(count or len(examples), len(examples))):
        example = examples[number]
        if "speech" not in example or "text" not in example:
            raise ValueError(f'{name} must have "speech" and "text", it has {", ".join(sorted(example))}')
        text = example["text"]
        yield Utterance(text.decode("utf-8") if isinstance(text, bytes) else str(text), np.asarray(example["speech"]).astype(np.int16))


def plain(text: str) -> str:
    """A transcript in lower case without punctuation but apostrophes inside words, as word error rates of different sets compare it.

    Examples:
      >>> plain("Well -- it's HIS, n'est-ce pas?")
      "well it's his n'est ce pas"
    """
    return " ".join(word.strip("'") for word in re.sub(r"[^\w']|_", " ", text.lower()).split() if word.strip("'"))


class Words:
    """The vocabulary of known words: ids from `FIRST_WORD` on, no subwords; `Subwords` of `edd.data.translation` has the same methods.

    Examples:
      >>> words = Words(WORDS)
      >>> words.size, words.encode("one zero"), words.decode([5, 4, 2, 9]), words.piece(5)
      (14, [5, 4], 'one zero', 'one')
    """

    def __init__(self, words: Sequence[str]):
        self.words = tuple(words)
        self._ids = {word: FIRST_WORD + number for number, word in enumerate(self.words)}

    @property
    def size(self) -> int:
        """V, the special ids included."""
        return FIRST_WORD + len(self.words)

    def encode(self, text: str) -> list[int]:
        """Ids without start and end; ValueError for an unknown word."""
        unknown = [word for word in text.split() if word not in self._ids]
        if unknown:
            raise ValueError(f"text must be of the words {', '.join(self.words)}; got {unknown[0]!r}")
        return [self._ids[word] for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """The words up to the first end id; ids that are no word are left out."""
        kept = []
        for token in map(int, ids):
            if token == END:
                break
            if FIRST_WORD <= token < self.size:
                kept.append(self.words[token - FIRST_WORD])
        return " ".join(kept)

    def piece(self, token: int) -> str:
        """What a token looks like."""
        return self.words[int(token) - FIRST_WORD] if FIRST_WORD <= int(token) < self.size else "_"
