"""Texts that say nearly the same, and texts that share a passage with an evaluation set, both by their words.

By hand on numpy: `datasketch`, the library for it, brings SciPy along for what is thirty lines here.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"\w+|[^\w\s]")
_SHINGLE = 5
"""Words of a shingle."""
_BANDS, _ROWS = 20, 5
"""Bands of a signature, and values in a band: two texts that share 80 % of their shingles meet in some band with
probability 0.9996."""
_SEED = 20250122


def words_of(text: str) -> list[str]:
    """Lower-case words and signs; spacing plays no part."""
    return _WORD.findall(text.lower())


def near_duplicates(texts: Sequence[str], threshold: float) -> list[bool]:
    """Whether each text shares at least `threshold` of their shingles (Jaccard) with an earlier one that is no duplicate.

    Candidates come from MinHash signatures in bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3),
    so a pair near the threshold may be missed; every hit is checked exactly. 1 finds only texts of the same words.
    """
    shingles = [_shingles(words_of(text)) for text in texts]
    buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
    found = []
    for number, own in enumerate(shingles):
        keys = [(band, rows.tobytes()) for band, rows in enumerate(_signature(own).reshape(_BANDS, _ROWS))]
        rivals = {rival for key in keys for rival in buckets[key]}
        duplicate = any(_jaccard(own, shingles[rival]) >= threshold for rival in rivals)
        found.append(duplicate)
        if not duplicate:
            for key in keys:
                buckets[key].append(number)
    return found


class Passages:
    """The passages of a set of texts, to find which other texts hold one of them."""

    def __init__(self, texts: Iterable[str], words: int) -> None:
        """`words`: length of a passage (13 in GPT-3, arXiv:2005.14165, appendix C). A shorter text is a passage whole."""
        self._words = words
        self._passages: dict[int, set[int]] = {}
        for text in texts:
            for length, passage in self._of(words_of(text)):
                self._passages.setdefault(length, set()).add(passage)

    def _of(self, words: list[str]) -> Iterable[tuple[int, int]]:
        length = min(self._words, len(words))
        return ((length, _hash(words[at : at + length])) for at in range(len(words) - length + 1))

    def occur_in(self, text: str) -> bool:
        """Whether a whole passage occurs in `text`; one that is a whole short text only where it is all of `text`."""
        words = words_of(text)
        if len(words) < self._words:
            return _hash(words) in self._passages.get(len(words), ())
        long = self._passages.get(self._words, set())
        return any(passage in long for _, passage in self._of(words))


def _shingles(words: list[str]) -> frozenset[int]:
    length = min(_SHINGLE, len(words))
    return frozenset(_hash(words[at : at + length]) for at in range(len(words) - length + 1))


def _hash(words: Sequence[str]) -> int:
    """60 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest(), "little") >> 4


def _signature(shingles: frozenset[int]) -> np.ndarray:
    """[bands · rows] uint64 least value of each permutation."""
    if not shingles:
        return np.zeros(_BANDS * _ROWS, np.uint64)
    values = np.fromiter(shingles, np.uint64, len(shingles))
    # Multiply-shift: a random odd factor permutes the 64-bit integers, and the high bits are well mixed.
    return ((_FACTORS[:, None] * values[None, :]) >> np.uint64(16)).min(axis=1)


_FACTORS = np.random.Generator(np.random.PCG64(_SEED)).integers(0, 1 << 63, _BANDS * _ROWS, np.uint64) * np.uint64(
    2
) + np.uint64(1)


def _jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    return len(left & right) / len(left | right) if left or right else 1.0
