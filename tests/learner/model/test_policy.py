"""The policy on packs is the plain `transformers` model on each sequence, whatever the cut; and what `build` makes."""

import string
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.batch import TrainingSequence
from learner.losses.policy import policy_loss
from learner.losses.preferences import pairwise_loss
from learner.losses.types import LossParts, Tokens
from learner.model.policy import PackTensors, Policy, last_states, load_policy, load_reward_model, to_device
from learner.model.small import END, TAGS, BuildSpec, bpe_tokenizer, build_model, character_tokenizer
from rollout.errors import InputError
from tests.learner.loss_numbers import loss_spec
from tests.learner.packs import numbers_of_packs, packs_of

CPU = torch.device("cpu")
VOCABULARY = 2 + 256 + len(TAGS)
SPEC = {
    "tokenizer": "characters",
    "vocab_size": 0,
    "layers": 2,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 2,
    "intermediate": 48,
    "tied": False,
    "max_tokens": 64,
    "seed": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(BuildSpec(**SPEC), iter(()), path)
    return str(path)


def open_policy(folder: str, dtype: torch.dtype = torch.float64, chunk: int = 1000) -> Policy:
    return load_policy(folder, dtype, trust_remote_code=False, logit_chunk_tokens=chunk)


@pytest.fixture(scope="module")
def policy(folder: str) -> Policy:
    return open_policy(folder)


def rows() -> list[TrainingSequence]:
    """Six sequences; prompts and completions of several lengths."""
    rng = np.random.default_rng(0)
    return [
        TrainingSequence(
            token_ids=rng.integers(3, 100, size=length),
            first_target=first,
            advantage=float(rng.normal()),
            rollout_logprobs=rng.uniform(-6, -3, size=length - first).astype(np.float32),
        )
        for first, length in ((4, 7), (2, 30), (5, 6), (3, 18), (1, 2), (6, 25))
    ]


def alone(folder: str, row: TrainingSequence, temperature: float) -> tuple[Tensor, Tensor]:
    """By `transformers` itself: logprobs of the targets and entropies where they are drawn, for one sequence."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(torch.tensor(row.token_ids)[None]).logits[0, row.first_target - 1 : -1]
    logprobs = torch.log_softmax(logits / temperature, -1)
    targets = torch.tensor(row.token_ids[row.first_target :])
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


# --- Values


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropies_are_those_of_transformers(folder: str, temperature: float) -> None:
    (pack,) = packs_of(rows())
    with torch.no_grad():
        logprobs, entropies = open_policy(folder, torch.float32, chunk=7)(pack, temperature)
    assert logprobs.dtype == torch.float32
    longest_first = sorted(rows(), key=lambda row: len(row.token_ids), reverse=True)
    expected = [alone(folder, row, temperature) for row in longest_first]
    torch.testing.assert_close(logprobs, torch.cat([e[0] for e in expected]), rtol=0, atol=1e-5)
    torch.testing.assert_close(entropies, torch.cat([e[1] for e in expected]), rtol=0, atol=1e-5)


def test_entropy_of_a_flat_distribution_is_the_log_of_the_vocabulary(folder: str) -> None:
    flat = open_policy(folder)
    torch.nn.init.zeros_(flat.model.get_output_embeddings().weight)
    logprobs, entropies = flat(packs_of(rows())[0], 1.0)
    size = flat.model.config.vocab_size
    torch.testing.assert_close(entropies, torch.full_like(entropies, np.log(size)))
    torch.testing.assert_close(logprobs, torch.full_like(logprobs, -np.log(size)))
    assert not entropies.requires_grad


# --- Gradients


def loss_of(policy: Policy, pack: PackTensors, temperature: float = 0.8, **changes: Any) -> LossParts:
    """Loss of one pack, off policy and away from the reference by constants."""
    spec = loss_spec(**({"kl_coef": 0.1, "importance_cap": 2.0} | changes))
    logprobs, entropies = policy(pack, temperature, spec.entropy_coef != 0)
    tokens = Tokens(
        logprobs=logprobs,
        old_logprobs=logprobs.detach() - 0.1,
        rollout_logprobs=pack.rollout_logprobs,
        ref_logprobs=logprobs.detach() + 0.3,
        entropies=entropies,
        advantages=pack.advantages,
        weights=pack.weights,
        segments=pack.segments,
    )
    return policy_loss(tokens, spec)


def gradients(policy: Policy, packs: list[PackTensors], **changes: Any) -> dict[str, Tensor]:
    """Gradients of the whole objective, accumulated pack by pack as the learner does."""
    policy.zero_grad()
    for pack in packs:
        loss_of(policy, pack, **changes).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor], slack: float = 1e-6) -> None:
    for name in left:
        # Logits are float32 even in a float64 model.
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=slack * float(left[name].abs().max()))


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"policy_loss": "gspo", "importance_level": "geometric", "entropy_coef": 0.2},
        {"policy_loss": "cispo", "importance_level": "sequence", "importance_mode": "mask", "importance_cap": 1e9},
    ],
    ids=["grpo", "gspo", "cispo"],
)
def test_gradients_do_not_depend_on_packs_micro_batches_ranks_or_chunks(policy: Policy, loss: dict[str, Any]) -> None:
    whole = gradients(policy, packs_of(rows()), **loss)
    assert all(gradient.abs().max() > 0 for gradient in whole.values())
    assert_same(gradients(policy, packs_of(rows(), budget=1), **loss), whole)
    assert_same(gradients(policy, packs_of(rows(), budget=40, ranks=4, seed=5), **loss), whole)
    try:
        for policy.chunk in (1, 5, 17):
            assert_same(gradients(policy, packs_of(rows()), **loss), whole)
    finally:
        policy.chunk = 1000


def test_the_entropy_has_the_gradient_of_its_definition(policy: Policy) -> None:
    (pack,) = packs_of(rows())
    policy.zero_grad()
    policy(pack, 0.2, True)[1].sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}
    policy.zero_grad()
    logprobs = torch.log_softmax(policy.model.lm_head(last_states(policy.model, pack)).float() / 0.2, -1)
    entropy = -(logprobs.exp() * logprobs).sum(-1).index_select(0, pack.target_positions)
    entropy.sum().backward()
    assert_same(found, {name: parameter.grad for name, parameter in policy.named_parameters()}, slack=1e-5)


def test_a_bonus_for_entropy_raises_it(folder: str) -> None:
    policy = open_policy(folder)
    (pack,) = packs_of([replace(row, advantage=0.0) for row in rows()])
    before = policy(pack, 1.0)[1].sum().item()
    policy.zero_grad()
    loss_of(policy, pack, kl_coef=0.0, entropy_coef=1.0).loss.backward()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter -= 0.1 * parameter.grad
    assert policy(pack, 1.0)[1].sum().item() > before


def test_gradient_of_a_logprob_equals_finite_differences(policy: Policy) -> None:
    pack = packs_of(rows()[:2])[0]
    weight = policy.model.base_model.layers[0].self_attn.q_proj.weight
    policy.zero_grad()
    policy(pack, 1.0)[0].sum().backward()
    slope = weight.grad.norm().item()
    direction = weight.grad / slope
    values = []
    with torch.no_grad():
        for step in (1e-2, -2e-2, 1e-2):  # there, across, and back
            weight += step * direction
            values.append(policy(pack, 1.0)[0].double().sum().item())
    # Logits are float32, so the difference of two sums is exact to about 1e-5.
    assert slope == pytest.approx((values[0] - values[1]) / 2e-2, rel=5e-3)


def test_only_positions_before_targets_receive_a_gradient_from_the_loss(policy: Policy) -> None:
    (pack,) = packs_of(rows())
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    handle = policy.model.base_model.register_forward_hook(keep)
    try:
        gradients(policy, [pack])
    finally:
        handle.remove()
    touched = kept[0].grad[0].abs().sum(-1).nonzero().flatten()
    assert torch.equal(touched, pack.target_positions)


def test_a_last_token_is_predicted_but_never_read(policy: Policy) -> None:
    # Token 101 stands only at the ends: its embedding feeds no prediction, but its output row is trained.
    ended = [
        TrainingSequence(
            token_ids=np.append(row.token_ids, 101),
            first_target=row.first_target,
            advantage=1.0,
            rollout_logprobs=np.append(row.rollout_logprobs, np.float32(-4)),
        )
        for row in rows()
    ]
    found = gradients(policy, packs_of(ended))
    assert not found["model.model.embed_tokens.weight"][101].any()
    assert found["model.lm_head.weight"][101].any()


def test_a_sequence_of_weight_zero_leaves_no_trace(policy: Policy) -> None:
    # A sequence of tokens 3–9 between two others that use none of them.
    mine = TrainingSequence(
        token_ids=np.array([3, 4, 5, 6, 7, 8, 9]), first_target=2, advantage=2.0, rollout_logprobs=np.zeros(5)
    )
    others = [
        TrainingSequence(token_ids=ids, first_target=2, advantage=1.0, rollout_logprobs=np.full(len(ids) - 2, -4.0))
        for ids in (np.arange(20, 30), np.arange(30, 35))
    ]
    (pack,) = packs_of([mine, *others])
    pack.weights[(pack.targets >= 3) & (pack.targets <= 9)] = 0
    embedding = gradients(policy, [pack])["model.model.embed_tokens.weight"]
    assert not embedding[3:10].any()
    assert embedding[20:29].abs().sum(-1).all()


def test_the_empty_pack_of_a_rank_without_work_adds_nothing(policy: Policy) -> None:
    packs = packs_of(rows()[:1], ranks=2)
    assert [bool(pack.weights.any()) for pack in packs] == [True, False]
    assert not any(gradient.any() for gradient in gradients(policy, packs[1:]).values())


def test_an_update_raises_what_was_better_than_its_group(folder: str) -> None:
    policy = open_policy(folder)
    (pack,) = packs_of([row for row in rows() if row.num_targets > 1])
    with torch.no_grad():
        before = policy(pack, 1.0)[0]
    policy.zero_grad()
    loss_of(policy, pack, 1.0, kl_coef=0.0, importance_cap=0.0).loss.backward()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter -= 0.01 * parameter.grad
        gain = policy(pack, 1.0)[0] - before
    assert (pack.weights * pack.advantages * gain).sum() > 0


# --- Reward models


def pairs(count: int = 12) -> list[TrainingSequence]:
    """Chosen and rejected in turn; what is chosen ends with token 50, the rest is noise."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        asked = rng.integers(3, 40, size=3)
        for last in (50, 51):
            token_ids = np.concatenate([asked, rng.integers(3, 40, size=rng.integers(1, 9)), [last]])
            found.append(TrainingSequence(token_ids=token_ids, first_target=3))
    return found


def scored(model: Any, packs: list[PackTensors]) -> LossParts:
    """Loss of all packs, and the figures of the last one."""
    total = torch.zeros(())
    for pack in packs:
        scores = model(pack)
        parts = pairwise_loss(scores, torch.zeros_like(scores).index_add(0, pack.segments, pack.weights))
        total = total + parts.loss
    return parts._replace(loss=total)


def test_scores_are_those_of_transformers(folder: str) -> None:
    from transformers import AutoModelForSequenceClassification

    model = load_reward_model(folder, torch.float32, trust_remote_code=False)
    plain = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", num_labels=1
    )
    plain.load_state_dict(model.model.state_dict())
    sequences = pairs(3)
    (pack,) = numbers_of_packs(sequences)
    with torch.no_grad():
        found = model(to_device(pack, CPU))
        expected = [plain(torch.tensor(sequences[row].token_ids)[None]).logits[0, 0] for row in pack.indices]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


def test_a_pair_stays_together_and_the_loss_does_not_depend_on_the_cut(folder: str) -> None:
    torch.manual_seed(0)
    model = load_reward_model(folder, torch.float64, trust_remote_code=False)
    whole = scored(model, packs_of(pairs(), together=2)).loss
    for cut in ({"budget": 1}, {"budget": 40, "ranks": 3, "seed": 4}, {"ranks": 16}):
        torch.testing.assert_close(scored(model, packs_of(pairs(), together=2, **cut)).loss, whole, rtol=0, atol=1e-6)


def test_it_learns_to_order(folder: str) -> None:
    torch.manual_seed(0)
    model = load_reward_model(folder, torch.float32, trust_remote_code=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    packs = packs_of(pairs(), together=2)
    first = scored(model, packs)
    for _ in range(20):
        optimizer.zero_grad()
        scored(model, packs).loss.backward()
        optimizer.step()
    last = scored(model, packs)
    assert first.loss.item() == pytest.approx(np.log(2), abs=0.2)
    assert last.loss.item() < 0.1
    assert last.figures["ordered"] == last.figures["count"] == 12


# --- Loading


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere"])
def test_a_missing_folder_is_one_line(path: str) -> None:
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_policy(path, torch.float32, trust_remote_code=False, logit_chunk_tokens=8)
    assert repr(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_policy(str(tmp_path), torch.float32, trust_remote_code=False, logit_chunk_tokens=8)
    assert "\n" not in str(caught.value)


# --- Building


@pytest.mark.parametrize("tied", [False, True])
def test_a_built_model_is_an_ordinary_folder(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    count = build_model(BuildSpec(**(SPEC | {"tied": tied})), iter(()), tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert shared == tied
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(tokenizer) == model.config.vocab_size == VOCABULARY
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(END)
    text = "<think>7+8=15</think><answer>75</answer>"
    assert tokenizer(text)["input_ids"] == character_tokenizer()(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokenizer_of_a_built_model_is_the_one_that_was_saved(folder: str, characters: Any) -> None:
    from transformers import AutoTokenizer

    text = "1 + 1 = 2\n<answer>2</answer>"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == characters(text)["input_ids"]


def test_the_seed_of_a_build_decides_the_weights(folder: str, policy: Policy, tmp_path: Path) -> None:
    for name, seed, same in (("a", SPEC["seed"], True), ("b", 2, False)):
        build_model(BuildSpec(**(SPEC | {"seed": seed})), iter(()), tmp_path / name)
        other = open_policy(str(tmp_path / name)).model.get_output_embeddings().weight
        assert torch.equal(other, policy.model.get_output_embeddings().weight) == same


@pytest.fixture(scope="module")
def characters() -> Any:
    return character_tokenizer()


@pytest.fixture(scope="module")
def bpe() -> Any:
    texts: Iterator[str] = (
        f"<think>{i}+{i}={2 * i}</think><answer>{2 * i}</answer> naïve reasoning about sums number {i * 7919}"
        for i in range(400)
    )
    return bpe_tokenizer(texts, vocab_size=300)


printable = [c for c in string.printable if c.isprintable() or c == "\n"]
# Any code point that is not half of a pair; `st.text()` would first index all of Unicode for seconds.
anything = st.integers(0, 0x10FFFF - 0x800).map(lambda point: chr(point if point < 0xD800 else point + 0x800))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(text=st.lists(st.sampled_from([*printable, *TAGS]), max_size=60).map("".join))
def test_printable_text_goes_through_the_character_tokenizer_unchanged(characters: Any, text: str) -> None:
    ids = characters(text)["input_ids"]
    assert characters.decode(ids) == text
    assert characters.unk_token_id not in ids


def test_one_token_a_character_and_one_a_tag(characters: Any) -> None:
    assert len(characters("<think>1+1=2, so\n</think><answer>2</answer>")["input_ids"]) == 4 + len("1+1=2, so\n") + 1
    assert len({characters(tag)["input_ids"][0] for tag in TAGS}) == 4
    assert characters("<thin>")["input_ids"] == [characters(c)["input_ids"][0] for c in "<thin>"]
    assert (
        characters.decode([*characters("75")["input_ids"], characters.eos_token_id], skip_special_tokens=True) == "75"
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(text=st.lists(anything, max_size=40).map("".join))
def test_any_text_goes_through_bpe_unchanged(bpe: Any, text: str) -> None:
    text = unicodedata.normalize("NFC", text)  # as Qwen2's tokenizer does first
    assert bpe.decode(bpe(text)["input_ids"]) == text


def test_bpe_knows_the_tags_and_its_size(bpe: Any) -> None:
    assert len(bpe) == 300
    assert [len(bpe(tag)["input_ids"]) for tag in TAGS] == [1, 1, 1, 1]
    chat = [{"role": "user", "content": "1+1"}]
    assert bpe.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == "User: 1+1\nAssistant: "
