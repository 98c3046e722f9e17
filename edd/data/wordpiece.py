"""Word pieces learnt from word counts: byte-pair merges whose ties are broken by the pieces themselves, so that the same text gives the
same pieces everywhere."""

import collections
import heapq
from collections.abc import Mapping

CONTINUES = "##"  # what a piece inside a word starts with


def learn(counts: Mapping[str, int], size: int) -> list[str]:
    """The pieces of words, at most `size`: single characters, then the most frequent pair of neighbours merged, again and again.

    Args:
      counts: word -> how often it occurs, >= 1.
      size: of the vocabulary; characters take at most half of it, the most frequent first.

    Returns:
      Pieces in the order in which they were found; those that continue a word start with "##". Pairs that occur once are not merged.

    References:
      Sennrich, Haddow & Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2.

    Examples:
      >>> learn({"low": 5, "lower": 2}, 12)
      ['##e', '##o', '##r', '##w', 'l', '##ow', 'low', '##er', 'lower']
    """
    words = [[word[0], *(CONTINUES + letter for letter in word[1:])] for word in sorted(counts)]
    weights = [counts[word] for word in sorted(counts)]
    letters: collections.Counter = collections.Counter()
    pairs: collections.Counter = collections.Counter()
    where: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
    for index, (pieces, weight) in enumerate(zip(words, weights)):
        for letter in pieces:
            letters[letter] += weight
        _count(pieces, weight, index, pairs, where)
    found = sorted(sorted(letters, key=lambda letter: (-letters[letter], letter))[: size // 2])
    known = set(found)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    while heap and len(found) < size:
        count, pair = heapq.heappop(heap)
        if -count != pairs[pair] or -count < 2:
            continue  # an entry from before a merge; its pair was pushed again then
        merged = pair[0] + pair[1].removeprefix(CONTINUES)
        if merged not in known:
            known.add(merged)
            found.append(merged)
        changed = set()
        for index in sorted(where[pair]):
            changed |= _count(words[index], -weights[index], index, pairs, where)
            words[index] = _merge(words[index], pair, merged)
            changed |= _count(words[index], weights[index], index, pairs, where)
        for each in changed:
            if pairs[each] > 0:
                heapq.heappush(heap, (-pairs[each], each))
    return found


def _count(pieces: list[str], weight: int, index: int, pairs, where) -> set[tuple[str, str]]:
    """Adds `weight` to the pairs of one word (takes them away where it is negative); the pairs."""
    neighbours = list(zip(pieces, pieces[1:]))
    for pair in neighbours:
        pairs[pair] += weight
        (where[pair].add if weight > 0 else where[pair].discard)(index)
    return set(neighbours)


def _merge(pieces: list[str], pair: tuple[str, str], merged: str) -> list[str]:
    out: list[str] = []
    position = 0
    while position < len(pieces):
        if tuple(pieces[position : position + 2]) == pair:
            out.append(merged)
            position += 2
        else:
            out.append(pieces[position])
            position += 1
    return out
