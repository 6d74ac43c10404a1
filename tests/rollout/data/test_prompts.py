"""Every row becomes a prompt or a record of why not; the stream is a function of seed, sources and index."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.data import prompts as module
from rollout.data.prompts import PromptStream, SkippedPrompt, render_prompts
from rollout.data.rows import Row
from rollout.data.templates import load_template
from rollout.errors import InputError
from rollout.types import Prompt


class Characters:
    """One token a character, `<s>` (token 1) in front; counts its calls."""

    chat_template = "…"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        self.calls.append(len(texts))
        return {"input_ids": [[1] * add_special_tokens + [ord(c) for c in text if c != "¿"] for text in texts]}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return f"[{messages[0]['content']}]"


def row(question: str, source: str = "s") -> Row:
    return Row(
        row_id=f"{source}/{question}",
        source=source,
        rubric="math",
        question=question,
        answer=f"answer to {question}",
        completion="",
        fields={"level": "3"},
    )


def prompts(source: str, count: int) -> list[Prompt]:
    rows = [row(str(i), source) for i in range(count)]
    return render_prompts(rows, load_template("plain", None), Characters(), 100)[0]


def take(stream: PromptStream, count: int) -> list[str]:
    return [stream.take().prompt_id for _ in range(count)]


# --- Rendering


def test_a_prompt_holds_what_its_row_held() -> None:
    (prompt,), skipped = render_prompts([row("ab")], load_template("plain", None), Characters(), 3)

    assert skipped == []
    assert (prompt.prompt_id, prompt.source, prompt.rubric) == ("s/ab", "s", "math")
    assert (prompt.text, prompt.token_ids) == ("ab", (1, 97, 98))
    assert (prompt.answer, prompt.fields) == ("answer to ab", {"level": "3"})


def test_the_special_token_in_front_stands_there_once_whoever_writes_it() -> None:
    tokenizer = Characters()
    for written in ("", "\x01"):
        tokenizer.apply_chat_template = lambda messages, **_: f"{written}[{messages[0]['content']}]"  # type: ignore[method-assign] # noqa: B023
        (prompt,), _ = render_prompts([row("a")], load_template("chat", tokenizer), tokenizer, 4)
        assert (prompt.text, prompt.token_ids) == (f"{written}[a]", (1, *map(ord, "[a]")))


def test_a_long_prompt_is_recorded_and_not_cut() -> None:
    kept, skipped = render_prompts([row("abc"), row("abcd"), row("a")], load_template("plain", None), Characters(), 4)

    assert [prompt.text for prompt in kept] == ["abc", "a"]
    assert skipped == [SkippedPrompt(row_id="s/abcd", num_tokens=5, limit=4)]


def test_prompts_that_are_all_too_long_are_an_error() -> None:
    rows = [row("abcd"), row("abc", "t")]

    with pytest.raises(InputError, match=r"all 2 prompts of 's', 't' are longer .*= 3; the shortest has 4 tokens"):
        render_prompts(rows, load_template("plain", None), Characters(), 3)


def test_a_prompt_without_any_token_is_an_error() -> None:
    tokenizer = Characters()
    tokenizer.apply_chat_template = lambda messages, **_: messages[0]["content"]  # type: ignore[method-assign]

    with pytest.raises(InputError, match="prompt s/¿: the tokenizer makes no token of it"):
        render_prompts([row("¿")], load_template("chat", tokenizer), tokenizer, 3)


def test_the_tokenizer_gets_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENIZE_BATCH", 2)
    tokenizer = Characters()

    kept, _ = render_prompts([row(c) for c in "abcde"], load_template("plain", None), tokenizer, 3)

    assert [count for count in tokenizer.calls if count > 1] == [2, 2]
    assert [prompt.text for prompt in kept] == list("abcde")


# --- Stream

sizes = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 6), min_size=1)


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 2**31 - 1), before=st.integers(0, 40), after=st.integers(1, 30))
def test_a_restored_stream_continues_exactly(sizes: dict[str, int], seed: int, before: int, after: int) -> None:
    data = {name: prompts(name, size) for name, size in sizes.items()}
    weights = {name: 1.0 + size for name, size in sizes.items()}
    stream = PromptStream(data, weights, seed)
    take(stream, before)
    state = json.loads(json.dumps(stream.state()))

    # As after a crash: everything is made again, in another order.
    restored = PromptStream({name: prompts(name, sizes[name]) for name in reversed(data)}, weights, seed)
    take(restored, 3)
    restored.restore(state)

    assert restored.taken == before
    assert take(restored, after) == take(stream, after)
    assert restored.state() == stream.state()


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_passes_through_every_prompt_once(size: int, epochs: int, seed: int) -> None:
    stream = PromptStream({"a": prompts("a", size)}, {"a": 2.0}, seed)

    for _ in range(epochs):
        assert len(set(take(stream, size))) == size


def test_epochs_sources_and_seeds_have_their_own_order() -> None:
    data = {"a": prompts("a", 50)}
    stream = PromptStream(data, {"a": 1}, 1)
    orders = [take(stream, 50) for _ in range(3)]
    orders.append(take(PromptStream(data, {"a": 1}, 2), 50))
    orders.append([name.replace("b/", "a/") for name in take(PromptStream({"b": prompts("b", 50)}, {"b": 1}, 1), 50)])
    orders.append([prompt.prompt_id for prompt in data["a"]])

    assert len(set(map(tuple, orders))) == len(orders)


def test_sources_are_mixed_by_weight_not_by_size() -> None:
    data = {"small": prompts("small", 3), "large": prompts("large", 300), "rare": prompts("rare", 10)}
    stream = PromptStream(data, {"small": 6, "large": 3, "rare": 1}, 1)

    taken = [stream.take().source for _ in range(4000)]

    # Standard deviation of each count is at most √(4000 · 0.6 · 0.4) ≈ 31.
    counts = Counter(taken)
    assert abs(counts["small"] - 2400) < 130
    assert abs(counts["large"] - 1200) < 130
    assert abs(counts["rare"] - 400) < 90
    # Drawn, not dealt in turns: a source also follows itself.
    assert {(a, b) for a, b in pairwise(taken)} == {(a, b) for a in data for b in data}


def test_the_stream_of_a_seed_never_changes() -> None:
    """A run may be resumed by a later version of the code or of numpy."""
    stream = PromptStream({"a": prompts("a", 5), "b": prompts("b", 4)}, {"a": 2, "b": 1}, 7)

    assert take(stream, 12) == ["a/4", "b/2", "b/3", "a/3", "a/0", "a/2", "a/1", "a/1", "b/1", "a/3", "b/0", "b/2"]


def test_the_state_stays_small() -> None:
    stream = PromptStream({"a": prompts("a", 2000)}, {"a": 1}, 1)
    take(stream, 500)

    assert len(json.dumps(stream.state())) < 300


def test_a_resume_with_other_data_says_what_changed() -> None:
    data = {"a": prompts("a", 5), "b": prompts("b", 5)}
    weights = {"a": 1.0, "b": 2.0}
    state = PromptStream(data, weights, 1).state()

    def message(changed: dict[str, list[Prompt]], weights: dict[str, float], seed: int = 1) -> str:
        with pytest.raises(InputError) as caught:
            PromptStream(changed, weights, seed).restore(state)
        return str(caught.value)

    assert "seed 1, now it is 2" in message(data, weights, seed=2)
    assert "data sources a, b, now they are a;" in message({"a": data["a"]}, {"a": 1.0})
    assert "data source 'b' had weight 2.0" in message(data, {"a": 1.0, "b": 3.0})
    last = data["b"][-1]
    for other in (
        data["b"][:-1],
        [*data["b"][:-1], replace(last, answer="5")],
        [*data["b"][:-1], replace(last, token_ids=(5,))],
        [*data["b"][:-1], replace(last, fields={"level": "4"})],
        data["b"][::-1],
    ):
        assert "the prompts of data source 'b'" in message({**data, "b": other}, weights)


@pytest.mark.parametrize(
    "damage",
    [{"counts": {"a": 3}}, {"counts": {}}, {"counts": {"a": -1}, "taken": -1}, {"counts": None}, {"taken": "x"}],
)
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    stream = PromptStream({"a": prompts("a", 5)}, {"a": 1}, 1)
    take(stream, 2)
    state = stream.state()

    with pytest.raises(InputError, match="state of the stream of prompts is damaged"):
        stream.restore({**state, **damage})
    with pytest.raises(InputError, match="state of the stream of prompts is damaged"):
        stream.restore({})
    assert stream.state() == state


def test_a_stream_needs_prompts_and_positive_weights() -> None:
    data = {"a": prompts("a", 2)}

    with pytest.raises(InputError, match="there are no prompts"):
        PromptStream({}, {}, 1)
    with pytest.raises(InputError, match="data source 'a' has no prompts"):
        PromptStream({"a": []}, {"a": 1}, 1)
    with pytest.raises(InputError, match="weights are for"):
        PromptStream(data, {"b": 1}, 1)
    with pytest.raises(InputError, match="the weights of the data sources a are all 0"):
        PromptStream(data, {"a": 0.0}, 1)
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="is neither 0 nor a positive number"):
            PromptStream(data, {"a": weight}, 1)
