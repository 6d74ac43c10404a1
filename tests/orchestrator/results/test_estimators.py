"""pass@k and cons@k against numbers worked by hand, and against every choice of k samples."""

from collections import Counter
from itertools import combinations

import pytest

from orchestrator.results.estimators import cons_at_k, pass_at_k


@pytest.mark.parametrize(
    ("n", "right", "k", "chance"),
    [
        (4, 2, 1, 1 / 2),
        (4, 2, 2, 1 - 1 / 6),  # of six pairs one holds both wrong ones
        (5, 1, 3, 3 / 5),
        (10, 3, 5, 1 - 21 / 252),
        (4, 2, 3, 1.0),  # only two are wrong
        (8, 0, 8, 0.0),
    ],
)
def test_pass_at_k(n: int, right: int, k: int, chance: float) -> None:
    assert pass_at_k(n, right, k) == pytest.approx(chance, abs=1e-15)


@pytest.mark.parametrize(("n", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_of_what_is_not_there(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, right, k)


@pytest.mark.parametrize(
    ("right", "others", "silent", "chances"),
    [
        (2, (1,), 0, (2 / 3, 2 / 3, 1)),  # of three pairs one is both right, two are ties
        (1, (2,), 0, (1 / 3, 1 / 3, 0)),
        (1, (), 1, (1 / 2, 1)),  # who does not answer does not vote
        (1, (1, 1), 0, (1 / 3, 1 / 3, 1 / 3)),  # of three alike each wins a third
        (0, (2,), 1, (0, 0, 0)),
        (3, (), 0, (1, 1, 1)),
    ],
)
def test_cons_at_k(right: int, others: tuple[int, ...], silent: int, chances: tuple[float, ...]) -> None:
    assert cons_at_k(right, others, silent) == pytest.approx(chances, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "others", "silent"),
    [(3, (2, 1), 1), (2, (2, 2, 1), 0), (4, (3, 3, 1, 1), 0), (2, (1, 1, 1, 1, 1), 2), (1, (4,), 3)],
)
def test_cons_at_k_is_the_mean_over_all_choices(right: int, others: tuple[int, ...], silent: int) -> None:
    samples = ["right"] * right + [str(place) for place, held in enumerate(others) for _ in range(held)] + [""] * silent
    for k, chance in enumerate(cons_at_k(right, others, silent), start=1):
        won = []
        for choice in combinations(samples, k):
            votes = Counter(filter(None, choice))
            best = max(votes.values(), default=0)
            won.append((votes["right"] == best) / list(votes.values()).count(best) if best else 0.0)
        assert chance == pytest.approx(sum(won) / len(won))


def test_k_ends_at_64() -> None:
    chances = cons_at_k(200, (150, 30), 20)
    assert len(chances) == 64
    assert chances[0] == pytest.approx(0.5)
    assert chances[63] > chances[15] > chances[0]
