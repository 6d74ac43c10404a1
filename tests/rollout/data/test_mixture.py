"""Sources with weights, sources that come and go, and epochs that come out exactly."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.data.mixture import Mixture
from rollout.errors import InputError

DATA = {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2", "b3", "b4"]}


class Texts(Mixture[str]):
    @staticmethod
    def fingerprint(items: Sequence[str]) -> str:
        return ",".join(items)


def finite(epochs: float, seed: int = 1, data: dict[str, list[str]] = DATA, **weights: float) -> list[str]:
    stream = Texts(data, {name: weights.get(name, 1.0) for name in data}, seed, epochs)
    return [stream.take() for _ in range(stream.total)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_whole_epochs_hold_every_item_so_many_times(sizes: dict[str, int], epochs: int, seed: int) -> None:
    data = {name: [f"{name}{i}" for i in range(size)] for name, size in sizes.items()}
    dealt = finite(epochs, seed, data)
    size = sum(sizes.values())
    for epoch in range(epochs):
        assert sorted(dealt[epoch * size : (epoch + 1) * size]) == sorted(
            item for held in data.values() for item in held
        )
    assert len(dealt) == epochs * size


def test_a_weight_is_how_often_a_source_is_passed_in_an_epoch() -> None:
    counts = Counter(finite(2, a=2, b=1))
    assert {counts[item] for item in DATA["a"]} == {4}
    assert {counts[item] for item in DATA["b"]} == {2}


def test_parts_of_epochs_and_weights_are_exact_to_half_an_item_and_repeat_nothing_early() -> None:
    dealt = finite(1.5, b=0.4)
    assert Counter(item[0] for item in dealt) == {"a": 5, "b": 3}
    for name, held in DATA.items():
        own = [item for item in dealt if item[0] == name]
        assert len(set(own[: len(held)])) == min(len(own), len(held))


def test_the_sources_are_mixed_within_an_epoch() -> None:
    data = {"a": [f"a{i}" for i in range(100)], "b": [f"b{i}" for i in range(100)]}
    dealt = finite(1, 1, data)
    # A hundred draws without replacement from half and half: standard deviation 3.5.
    assert 36 <= sum(item[0] == "a" for item in dealt[:100]) <= 64
    assert dealt != finite(1, 2, data)


def test_a_finite_stream_continues_exactly() -> None:
    weights = {"a": 1.0, "b": 2.0}
    whole = Texts(DATA, weights, 1, 2)
    [whole.take() for _ in range(9)]
    again = Texts(dict(reversed(DATA.items())), weights, 1, 2)
    again.restore(whole.state())
    left = whole.total - 9
    assert [again.take() for _ in range(left)] == [whole.take() for _ in range(left)]


def test_no_item_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match=r"0\.05 epochs of so few rows are not a single one"):
        finite(0.05)


def test_a_source_of_weight_0_comes_in_when_it_gets_a_weight() -> None:
    stream = Texts(DATA, {"a": 1, "b": 0}, 1)
    assert {stream.take()[0] for _ in range(50)} == {"a"}
    stream.reweight({"a": 0, "b": 3})
    assert {stream.take()[0] for _ in range(50)} == {"b"}
    stream.reweight({"a": 1, "b": 1})
    assert {stream.take()[0] for _ in range(50)} == {"a", "b"}


def test_other_weights_change_which_source_comes_next_and_not_its_order() -> None:
    plain, changed = (Texts(DATA, {"a": 1, "b": 1}, 1) for _ in range(2))
    changed.reweight({"a": 1, "b": 9})
    orders = [[stream.take() for _ in range(60)] for stream in (plain, changed)]
    assert orders[0] != orders[1]
    for name in DATA:
        one, other = ([item for item in order if item[0] == name] for order in orders)
        assert all(x == y for x, y in zip(one, other, strict=False))
