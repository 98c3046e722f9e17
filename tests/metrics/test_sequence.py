"""Word error rate and BLEU against a plain edit distance, sacrebleu's own corpus score, and their edges."""

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="install the sequences extra")
sacrebleu = pytest.importorskip("sacrebleu", reason="install the sequences extra")

from edd.metrics import rejection, sequence  # noqa: E402

WORDS = ["the", "cat", "sat", "on", "a", "mat", "Dog,", "late."]


def texts(count, seed, longest=9):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, longest))) for _ in range(count)]


def distance(hypothesis, reference):
    """Levenshtein's recursion over words."""
    rows = list(range(len(reference) + 1))
    for i, word in enumerate(hypothesis, 1):
        previous, rows[0] = rows[:], i
        for j, other in enumerate(reference, 1):
            rows[j] = min(previous[j] + 1, rows[j - 1] + 1, previous[j - 1] + (word != other))
    return rows[-1]


def test_word_error_rate_counts_edits_and_words():
    hypotheses, references = texts(40, 0), texts(40, 1)
    edits = np.array([distance(one.split(), other.split()) for one, other in zip(hypotheses, references)])
    words = np.array([len(text.split()) for text in references])
    assert sequence.word_error_rate(hypotheses, references) == edits.sum() / words.sum()
    np.testing.assert_array_equal(sequence.sentence_word_error_rate(hypotheses, references), edits / np.maximum(words, 1))
    counts = np.random.default_rng(2).integers(0, 3, (4, 40))
    repeated = [
        sequence.word_error_rate(*([t for t, n in zip(side, row) for _ in range(n)] for side in (hypotheses, references))) for row in counts
    ]
    np.testing.assert_allclose(sequence.word_error_rate(hypotheses, references, counts=counts), repeated, rtol=1e-12)


def test_empty_texts_have_a_word_error_rate():
    assert sequence.word_error_rate(["", " "], ["", ""]) == 0.0
    assert sequence.word_error_rate(["a b"], [""]) == 2.0  # over one word
    assert sequence.word_error_rate([""], ["a b"]) == 1.0
    assert sequence.word_error_rate(["a  b"], ["a b "]) == 0.0  # white space alone


def test_bleu_is_sacrebleus_for_one_and_for_several_references():
    hypotheses, one, two = texts(30, 3), texts(30, 4), texts(30, 5)
    hypotheses[0] = one[0] = "the cat sat on a mat"
    theirs = sacrebleu.BLEU(force=True)
    got = sequence.bleu(hypotheses, one)
    np.testing.assert_allclose(100 * got.score, theirs.corpus_score(hypotheses, [one]).score, rtol=1e-9)
    assert got.signature == str(theirs.get_signature())
    theirs = sacrebleu.BLEU(lowercase=True, tokenize="char", force=True)
    got = sequence.bleu(hypotheses, list(zip(one, two)), tokenize="char", lowercase=True)
    np.testing.assert_allclose(100 * got.score, theirs.corpus_score(hypotheses, [one, two]).score, rtol=1e-9)
    assert got.signature == str(theirs.get_signature()) and "nrefs:2" in got.signature


def test_counts_are_repeated_texts():
    hypotheses, references = texts(20, 6), texts(20, 6)
    references[3] = "a mat sat"
    counts = np.random.default_rng(7).integers(0, 3, (3, 20))
    got = sequence.bleu(hypotheses, references, counts=counts).score
    for value, row in zip(got, counts):
        repeated = [[text for text, count in zip(side, row) for _ in range(count)] for side in (hypotheses, references)]
        np.testing.assert_allclose(100 * value, sacrebleu.corpus_bleu(repeated[0], [repeated[1]], force=True).score, rtol=1e-9)


def test_sentence_bleu_is_sacrebleus_and_defined_for_empty_texts():
    hypotheses, references = texts(15, 8), texts(15, 9)
    got = sequence.sentence_bleu(hypotheses, references)
    for value, hypothesis, reference in zip(got, hypotheses, references):
        if hypothesis or reference:
            np.testing.assert_allclose(100 * value, sacrebleu.sentence_bleu(hypothesis, [reference]).score, rtol=1e-9)
    np.testing.assert_array_equal(sequence.sentence_bleu(["", "", "a"], ["", "a", ""]), [1, 0, 0])
    assert sequence.bleu(["", ""], ["a", "b c"]).score == 0.0


def test_rejection_by_word_error_rates_above_one():
    hypotheses, references = ["a", "b c d e", "c", "x y"], ["a", "b", "d", "x z"]  # rates 0, 3, 1, 1/2
    scaled = sequence.rejection_errors(hypotheses, references, "word_error_rate")
    np.testing.assert_allclose(scaled, np.array([0, 3, 1, 0.5]) / 3)
    clipped = sequence.rejection_errors(hypotheses, references, "word_error_rate", above_one="clip")
    np.testing.assert_array_equal(clipped, [0, 1, 1, 0.5])
    assert rejection.prediction_rejection_ratio([0, 3, 2, 1], scaled) == pytest.approx(1)  # the oracle's order
    below = sequence.rejection_errors(hypotheses[2:], references[2:], "word_error_rate")
    np.testing.assert_array_equal(below, [1, 0.5])  # untouched
    bleu = sequence.rejection_errors(hypotheses, references)
    assert bleu[0] == 0 and (bleu[1:] > 0).all() and (bleu <= 1).all()


def test_bad_input_is_named():
    cases = [
        (lambda: sequence.word_error_rate("a", ["a"]), TypeError, "hypotheses must be a sequence"),
        (lambda: sequence.word_error_rate([1], ["a"]), TypeError, "hypotheses must hold texts, got int at index 0"),
        (lambda: sequence.word_error_rate([], []), ValueError, "hypotheses must hold at least one text"),
        (
            lambda: sequence.word_error_rate(["a"], ["a", "b"]),
            ValueError,
            "references must have one entry for each of the 1 hypotheses, got 2",
        ),
        (lambda: sequence.bleu(["a"], ["a", "b"]), ValueError, "references must have one entry"),
        (lambda: sequence.bleu(["a", "b"], [["a"], ["a", "b"]]), ValueError, "references must be equally many"),
        (lambda: sequence.bleu(["a"], ["a"], tokenize="words"), ValueError, "tokenize must be one of"),
        (lambda: sequence.rejection_errors(["a"], ["a"], "ter"), ValueError, "measure must be one of"),
        (lambda: sequence.rejection_errors(["a"], ["a"], above_one="wrap"), ValueError, "above_one must be"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
