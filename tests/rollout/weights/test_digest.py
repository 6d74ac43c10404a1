"""The digest of weights: the same wherever and in whatever order it is made, another for other weights."""

import pytest
import torch

from rollout.weights import digest as module
from rollout.weights.digest import Digest


def digest_of(**tensors: torch.Tensor) -> bytes:
    digest = Digest()
    for name, tensor in tensors.items():
        digest.add(name, tensor)
    return digest.value()


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "a": torch.randn(7, 33, generator=generator).bfloat16(),
        "b": torch.randn(5, generator=generator),
        "c": torch.arange(9, dtype=torch.uint8),
    }


def test_order_strides_and_pieces_do_not_matter(
    weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest_of(**weights)
    assert digest_of(**dict(reversed(weights.items()))) == expected
    assert digest_of(**weights | {"a": weights["a"].T.contiguous().T}) == expected
    monkeypatch.setattr(module, "CHUNK", 16)
    assert digest_of(**weights) == expected


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_one_bit_two_rows_changed_places_and_another_name_show(weights: dict[str, torch.Tensor], name: str) -> None:
    expected, tensor = digest_of(**weights), weights[name]
    flipped = tensor.clone()
    flipped.view(-1).view(torch.uint8)[-1] ^= 1
    assert digest_of(**weights | {name: flipped}) != expected
    assert digest_of(**weights | {name: tensor.flip(0)}) != expected
    others = {key: value for key, value in weights.items() if key != name}
    assert digest_of(**others, other=tensor) != expected
    assert digest_of(**others) != expected


def test_two_tensors_that_change_places_show() -> None:
    first, second = torch.ones(4), torch.zeros(4)
    assert digest_of(a=first, b=second) != digest_of(a=second, b=first)


def test_zeros_of_two_lengths_may_not_be_told_apart_but_nothing_and_something_are() -> None:
    assert digest_of() != digest_of(a=torch.zeros(3))
