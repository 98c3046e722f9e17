"""Word pieces: against the textbook's loop, and their limits."""

import collections

import numpy as np

from edd.data import wordpiece


def slow(counts, size):
    """Counts every pair again before every merge; the most frequent, then the first in order."""
    words = {word: [word[0], *("##" + letter for letter in word[1:])] for word in counts}
    found = sorted({piece for pieces in words.values() for piece in pieces})
    while len(found) < size:
        pairs = collections.Counter()
        for word, pieces in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merged = best[0] + best[1][2:]
        found += [] if merged in found else [merged]
        for word, pieces in words.items():
            out = []
            for piece in pieces:
                out[-1:] = [merged] if out and (out[-1], piece) == best else [*out[-1:], piece]
            words[word] = out
    return found


def test_equals_the_loop_that_counts_again_before_every_merge():
    rng = np.random.default_rng(0)
    for seed in range(5):
        words = ["".join(rng.choice(list("abcd"), rng.integers(1, 8))) for _ in range(30)]
        counts = {word: int(rng.integers(1, 9)) for word in words}
        for size in (20, 60):
            assert wordpiece.learn(counts, size) == slow(counts, size), (seed, size)


def test_order_of_the_words_does_not_matter():
    counts = {"abab": 3, "ba": 2, "bab": 4}
    assert wordpiece.learn(counts, 30) == wordpiece.learn(dict(reversed(counts.items())), 30)


def test_rare_characters_are_left_out_of_a_small_vocabulary():
    found = wordpiece.learn({"aaaa": 9, "xyz": 1, "b": 5}, 6)
    assert set(found[:3]) == {"##a", "a", "b"}
