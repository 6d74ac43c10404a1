"""The tiled head is log-softmax and its entropy, values and gradients, whatever the tiles; and it makes no large tensor."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from learner.model import head as module
from learner.model.head import LanguageHead


def head_of(vocabulary: int, hidden: int, bias: bool, dtype: torch.dtype = torch.float64) -> LanguageHead:
    torch.manual_seed(vocabulary)
    layer = nn.Linear(hidden, vocabulary, bias=bias, dtype=dtype)
    nn.init.normal_(layer.weight)
    layer.__class__ = LanguageHead
    return layer


def by_definition(head: LanguageHead, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(nn.functional.linear(hidden, head.weight, head.bias) / temperature, -1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def slopes(outputs: tuple[Tensor, Tensor], inputs: list[Tensor], entropy: bool) -> tuple[Tensor, ...]:
    """Gradients of a sum in which every token and both outputs count differently."""
    pull = torch.sin(torch.arange(1, len(outputs[0]) + 1, dtype=outputs[0].dtype))
    total = (outputs[0] * pull).sum()
    if entropy:
        total = total + (outputs[1] * pull.flip(0)).sum()
    return torch.autograd.grad(total, inputs)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 12),
    vocabulary=st.integers(1, 40),
    chunk=st.integers(1, 13),
    width=st.integers(1, 41),
    bias=st.booleans(),
    entropy=st.booleans(),
    temperature=st.sampled_from([1.0, 0.6]),
)
def test_values_and_gradients_are_those_of_the_definition(
    tokens: int, vocabulary: int, chunk: int, width: int, bias: bool, entropy: bool, temperature: float
) -> None:
    head = head_of(vocabulary, 5, bias)
    generator = torch.Generator().manual_seed(tokens)
    hidden = (4 * torch.randn(tokens, 5, dtype=torch.float64, generator=generator)).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._TILE_BYTES, "cpu", 4 * chunk * width)
        found = head(hidden, targets, temperature, entropy, chunk)
        inputs = [hidden, *head.parameters()]
        found_slopes = slopes(found, inputs, entropy)
    expected = by_definition(head, hidden, targets, temperature)
    assert found[1].requires_grad == entropy
    for got, wanted in zip((*found, *found_slopes), (*expected, *slopes(expected, inputs, entropy)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)


def test_large_logits_lose_nothing() -> None:
    head = head_of(50, 4, bias=False)
    hidden = 300 * torch.ones(2, 4, dtype=torch.float64)
    found = head(hidden, torch.tensor([3, 7]))
    for got, wanted in zip(found, by_definition(head, hidden, torch.tensor([3, 7]), 1.0), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_only_the_logits_are_rounded() -> None:
    head = head_of(300, 16, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    targets = torch.arange(40)
    found = head(hidden, targets, 1.0, True, 7)
    assert found[0].dtype == found[1].dtype == torch.float32
    exact = LanguageHead(16, 300, bias=False, dtype=torch.float64)
    exact.load_state_dict(head.state_dict())
    precise = hidden.detach().double().requires_grad_()
    expected = by_definition(exact, precise, targets, 1.0)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=0.05)
    got = slopes(found, [hidden, head.weight], True)
    wanted = slopes(expected, [precise, exact.weight], True)
    for left, right in zip(got, wanted, strict=True):
        assert (left.double() - right).norm() < 0.02 * right.norm()


def test_a_frozen_head_gets_no_gradient() -> None:
    head = head_of(9, 4, bias=True).requires_grad_(False)
    hidden = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    head(hidden, torch.tensor([1, 2, 3]))[0].sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is head.bias.grad is None


def test_without_targets_it_is_the_output_layer() -> None:
    head = head_of(9, 4, bias=True)
    hidden = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(head(hidden), nn.functional.linear(hidden, head.weight, head.bias))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_grows_with_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, vocabulary, size = 128, 2048, 8
    monkeypatch.setitem(module._TILE_BYTES, "cpu", 4 * 32 * 256)
    head = head_of(vocabulary, size, bias=False, dtype=torch.float32)
    hidden = torch.randn(tokens, size, requires_grad=True)
    with Largest() as largest:
        logprobs, entropies = head(hidden, torch.arange(tokens), 0.9, True, 32)
        (logprobs.sum() + entropies.sum()).backward()
    assert largest.elements == max(vocabulary * size, tokens * size, 32 * 256)
