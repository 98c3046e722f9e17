"""Metrics of generated text against references: word error rate (jiwer) and BLEU (sacrebleu), of a corpus and of each sentence.

Fractions, as everywhere: a BLEU of 0.41 is what papers print as 41. Both libraries come with the extra `sequences` and are imported by
the first call. Sentence-level rejection is `edd.metrics.rejection` on `rejection_errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edd.metrics import host
from edd.typing import ArrayLike

MEASURES = ("bleu", "word_error_rate")
Counts = ArrayLike | None


class Bleu(NamedTuple):
    """Corpus BLEU in [0, 1] (an array [R] for counts [R, N]) and the signature that says how it was computed."""

    score: float | np.ndarray
    signature: str


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str], *, counts: Counts = None) -> float | np.ndarray:
    """Word error rate of a corpus: substitutions, deletions and insertions over the references' words, as a fraction.

    Words are what white space separates; case and punctuation count.

    Args:
      hypotheses: N texts; may be empty ones (all words deleted).
      references: N texts; may be empty ones (all words inserted).
      counts: whole numbers >= 0, how many times each text counts: [N], or [R, N]; None counts each once.

    Returns:
      >= 0, and above 1 where more words are inserted than the references have. References without any word count as one word.

    Raises:
      ValueError: no text, or numbers of texts that differ.
      TypeError: something that is not a text.
      ImportError: jiwer is not installed.

    References:
      Levenshtein 1966, "Binary codes capable of correcting deletions, insertions, and reversals".

    Examples:
      >>> word_error_rate(["the cat sat", ""], ["the cat sat down", "yes"])
      0.4
    """
    edits, words = _edits(hypotheses, references)
    return host.evaluate(lambda weights: weights @ edits / max(weights @ words, 1), counts, len(edits))


def sentence_word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Word error rate of each text [N]: its edits over its reference's words (over 1 where there are none); may exceed 1.

    Args:
      hypotheses: N texts.
      references: N texts.

    Raises:
      ValueError, TypeError, ImportError: as `word_error_rate`.

    References:
      Levenshtein 1966, "Binary codes capable of correcting deletions, insertions, and reversals".

    Examples:
      >>> sentence_word_error_rate(["a b", "", "a b"], ["a c", "", ""]).tolist()
      [0.5, 0.0, 2.0]
    """
    edits, words = _edits(hypotheses, references)
    return edits / np.maximum(words, 1)


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
    counts: Counts = None,
) -> Bleu:
    """BLEU of a corpus, n-grams up to 4, exponential smoothing, as a fraction with its signature.

    Args:
      hypotheses: N detokenised texts; may be empty ones.
      references: N texts, or N sequences of equally many texts each.
      tokenize: sacrebleu's tokeniser: "13a" (its default), "intl", "char", "none" and others.
      lowercase: ignore case.
      counts: whole numbers >= 0, how many times each text counts: [N], or [R, N]; None counts each once.

    Returns:
      `Bleu`; 0 where nothing matches (so for a corpus of empty hypotheses).

    Raises:
      ValueError: no text, numbers of texts or of references that differ, an unknown tokeniser.
      TypeError: something that is not a text.
      ImportError: sacrebleu is not installed.

    References:
      Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation"; Post 2018, "A call for clarity in
      reporting BLEU scores".

    Examples:
      >>> found = bleu(["the cat sat on the mat", "it was late"], ["the cat sat on the mat", "it was very late"])
      >>> round(found.score, 4), found.signature.split("|version")[0]
      (0.8143, 'nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp')
    """
    hypotheses, references = _texts(hypotheses, "hypotheses"), _references(references, len(hypotheses))
    scorer = _scorer(tokenize, lowercase, effective_order=False)
    scores = _sentence_scores(hypotheses, references, tokenize, lowercase)
    statistics = np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores])
    order = len(scores[0].counts)

    def score(weights):
        system, reference, *rest = (int(value) for value in weights @ statistics)
        result = scorer.compute_bleu(rest[:order], rest[order:], system, reference, smooth_method="exp", max_ngram_order=order)
        return result.score / 100

    value = host.evaluate(score, counts, len(hypotheses))
    scorer.corpus_score(hypotheses[:1], [[texts[0]] for texts in zip(*references)])  # the signature needs a call: it states the references
    return Bleu(value, str(scorer.get_signature()))


def sentence_bleu(
    hypotheses: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]], *, tokenize: str = "13a", lowercase: bool = False
) -> np.ndarray:
    """BLEU of each text [N] as a fraction, with effective order (n-grams longer than the text are left out).

    Args:
      hypotheses: N detokenised texts.
      references: N texts, or N sequences of equally many texts each.
      tokenize: sacrebleu's tokeniser.
      lowercase: ignore case.

    Returns:
      In [0, 1]; an empty text has 1 against an empty reference and 0 against any other.

    Raises:
      ValueError, TypeError, ImportError: as `bleu`.

    References:
      Post 2018, "A call for clarity in reporting BLEU scores" (sentence BLEU with effective order).

    Examples:
      >>> sentence_bleu(["a b c d", "", ""], ["a b c d", "x", ""]).round(4).tolist()
      [1.0, 0.0, 1.0]
    """
    hypotheses, references = _texts(hypotheses, "hypotheses"), _references(references, len(hypotheses))
    scores = [score.score / 100 for score in _sentence_scores(hypotheses, references, tokenize, lowercase)]
    nothing = [not text.strip() and any(not reference.strip() for reference in own) for text, own in zip(hypotheses, references)]
    return np.where(nothing, 1.0, np.clip(scores, 0, 1))


def rejection_errors(
    hypotheses: Sequence[str], references: Sequence[str], measure: str = "bleu", *, above_one: str = "scale"
) -> np.ndarray:
    """Error of each text in [0, 1], as `edd.metrics.rejection` takes it: 1 - sentence BLEU, or the sentence's word error rate.

    A word error rate above 1 is no such error. "scale" divides all errors by the largest of them: the prediction rejection ratio is that
    of the unbounded rates (it does not depend on the errors' unit), areas and curves are in units of the largest. "clip" counts such a text
    as wholly wrong.

    Args:
      hypotheses: N texts.
      references: N texts.
      measure: "bleu" or "word_error_rate".
      above_one: "scale" or "clip"; nothing happens where no word error rate exceeds 1.

    Returns:
      [N] in [0, 1]; 0 for a text equal to its reference.

    Raises:
      ValueError: an unknown option, and as `word_error_rate`.
      TypeError, ImportError: as `word_error_rate` and `bleu`.

    References:
      Malinin & Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction", section 4 (sequence-level rejection).

    Examples:
      >>> rejection_errors(["a", "b c d e"], ["a", "b"], "word_error_rate").tolist()  # rates 0 and 3
      [0.0, 1.0]
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {MEASURES}, got {measure!r}")
    if above_one not in ("scale", "clip"):
        raise ValueError(f'above_one must be "scale" or "clip", got {above_one!r}')
    if measure == "bleu":
        return 1 - sentence_bleu(hypotheses, references)
    rates = sentence_word_error_rate(hypotheses, references)
    return rates / max(rates.max(), 1) if above_one == "scale" else np.minimum(rates, 1)


def _texts(texts: Sequence[str], name: str) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a sequence of texts, got one text")
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name} must hold texts, got {type(text).__name__} at index {index}")
    if not texts:
        raise ValueError(f"{name} must hold at least one text")
    return texts


def _references(references, count: int) -> list[list[str]]:
    """The references of each of `count` texts, equally many each."""
    if isinstance(references, str):
        raise TypeError("references must be a sequence of texts, got one text")
    own = [[each] if isinstance(each, str) else _texts(each, "references") for each in references]
    if len(own) != count:
        raise ValueError(f"references must have one entry for each of the {count} hypotheses, got {len(own)}")
    if len({len(each) for each in own}) != 1:
        raise ValueError(f"references must be equally many for each text, got {sorted({len(each) for each in own})}")
    return own


def _edits(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(edits [N], words of the reference [N])."""
    import jiwer

    hypotheses, references = _texts(hypotheses, "hypotheses"), _texts(references, "references")
    if len(references) != len(hypotheses):
        raise ValueError(f"references must have one entry for each of the {len(hypotheses)} hypotheses, got {len(references)}")
    edits, words = np.zeros(len(hypotheses), np.int64), np.array([len(text.split()) for text in references])
    for index, (hypothesis, reference) in enumerate(zip(hypotheses, references)):
        if not reference.split() or not hypothesis.split():
            edits[index] = max(len(reference.split()), len(hypothesis.split()))
        else:
            found = jiwer.process_words(" ".join(reference.split()), " ".join(hypothesis.split()))
            edits[index] = found.substitutions + found.deletions + found.insertions
    return edits, words


def _scorer(tokenize: str, lowercase: bool, effective_order: bool):
    from sacrebleu.metrics import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"tokenize must be one of {sorted(BLEU.TOKENIZERS)}, got {tokenize!r}")
    return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=effective_order, force=True)


def _sentence_scores(hypotheses: list[str], references: list[list[str]], tokenize: str, lowercase: bool) -> list:
    scorer = _scorer(tokenize, lowercase, effective_order=True)
    return [scorer.sentence_score(text, own) for text, own in zip(hypotheses, references)]
