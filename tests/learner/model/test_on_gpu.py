"""What only a card can show, in bfloat16: attention by spans, the head's products, fused steps. All of it within a minute."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from learner.batch import TrainingSequence
from learner.model.attention import Layout, packed_attention, serves_varlen
from learner.model.head import LanguageHead
from learner.model.policy import load_policy, to_device
from learner.model.small import build_model
from tests.learner.model.test_architecture import SERVED, by_transformers, write
from tests.learner.packs import numbers_of_packs
from tests.learner.specs import build_spec

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
SHARED = ([70, 33, 200, 5, 300, 40, 513], [-1, 0, 0, -1, -1, 4, 4])
"""(lengths, prefixes) of spans: prompts shorter and longer than what follows them, and a sequence alone."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def eager(states: list[Tensor], window: int | None) -> Tensor:
    """The definition, span by span after its prefix, in float32: softmax(q kᵀ / √D) v over the last `window` tokens."""
    lengths, prefixes = SHARED
    query, key, value = (list(torch.split(tensor[0], lengths, 1)) for tensor in states)
    outputs = []
    for span, prefix in enumerate(prefixes):
        members = [span] if prefix < 0 else [prefix, span]
        q = query[span]
        k, v = (torch.cat([part[i] for i in members], 1).repeat_interleave(2, 0) for part in (key, value))
        behind = torch.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None] - torch.arange(k.shape[1])[None, :]
        hidden = ((behind < 0) | (behind >= (window or k.shape[1]))).to(q.device)
        scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(hidden, -math.inf)
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)[None]


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("window", [None, 1, 50, 128, 5000])
def test_spans_by_flash_attention_are_the_definition(window: int | None, size: int) -> None:
    lengths, prefixes = SHARED
    half = [torch.randn(1, heads, sum(lengths), size, device=CUDA).bfloat16().requires_grad_() for heads in (4, 2, 2)]
    full = [tensor.detach().float().requires_grad_() for tensor in half]
    layout = Layout(np.array(lengths), np.array(prefixes), CUDA)
    assert serves_varlen(half[0], half[2])
    assert not serves_varlen(full[0], full[2])
    expected = eager(full, window)
    ways = [
        packed_attention(nn.Identity(), *states, None, layout=layout, sliding_window=window)[0]
        for states in (half, full)
    ]
    pull = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * pull).sum(), full)
    # The second way, padded buckets, serves float32.
    for found, states, value_slack, slope_slack in zip(ways, (half, full), (3e-2, 1e-3), (2e-2, 1e-3), strict=True):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=value_slack)
        for got, slope in zip(torch.autograd.grad((found * pull).sum(), states), wanted, strict=True):
            # A token that sees itself alone has no slope but by rounding, in its query and its key.
            assert (got.float() - slope).norm() <= slope_slack * (pull if window == 1 else slope).norm()


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma3"])
def test_a_model_on_packs_is_the_model_on_each_sequence(tmp_path: Path, name: str) -> None:
    """Sequences beyond the window, with a shared prompt; bfloat16 on the card beside float32 on the host."""
    kind, changes = SERVED[name]
    folder = write(tmp_path, kind, changes | {"head_dim": 32, "hidden_size": 128}, spread=0.02)
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, 64, size=40)
    rows = [
        TrainingSequence(token_ids=np.concatenate([prompt, rng.integers(2, 64, size=own)]), first_target=40)
        for own in (60, 9, 25)
    ]
    (pack,) = numbers_of_packs(rows)
    policy = load_policy(folder, torch.bfloat16, trust_remote_code=False, logit_chunk_tokens=32).to(CUDA)
    found = policy(to_device(pack, CUDA), 1.0)[0]
    assert found.dtype == torch.float32
    alone = by_transformers(folder, rows)
    by_length = {len(logprobs): logprobs for logprobs in alone}
    expected = torch.cat([by_length[int((pack.segments == segment).sum())] for segment in range(len(rows))])
    apart = (found.detach().cpu() - expected.detach()).abs()
    assert apart.mean() < 0.03
    assert apart.max() < 0.3
    found.sum().backward()
    assert all(
        parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in policy.parameters()
    )


@pytest.mark.parametrize("bias", [False, True])
def test_no_logit_of_a_head_in_bfloat16_is_rounded(bias: bool) -> None:
    tokens, size, vocabulary = 300, 512, 5000
    head = nn.Linear(size, vocabulary, bias=bias, device=CUDA, dtype=torch.bfloat16)
    head.__class__ = LanguageHead
    hidden = (8 * torch.randn(tokens, size, device=CUDA)).bfloat16().requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), device=CUDA)
    inputs = [hidden, *head.parameters()]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    logits = nn.functional.linear(*exact) / 0.7
    logprobs = torch.log_softmax(logits, -1)
    expected = logprobs.gather(1, targets[:, None])[:, 0]
    found, entropies = head(hidden, targets, 0.7, True, 128)
    assert found.dtype == torch.float32
    # Rounded to bfloat16, logits of this size (up to 20) would be 0.03 apart.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(entropies.double(), -(logprobs.exp() * logprobs).sum(-1), rtol=0, atol=1e-3)
    pull = torch.randn(tokens, device=CUDA)
    slopes = torch.autograd.grad((found * pull).sum() + entropies.sum(), inputs)
    wanted = torch.autograd.grad((expected * pull).sum() - (logprobs.exp() * logprobs).sum(), exact)
    for got, slope in zip(slopes, wanted, strict=True):
        assert (got.double() - slope).norm() < 0.01 * slope.norm()


STEPS = """
import inspect, json, sys
import numpy as np, torch
from learner.batch import TrainingSequence, make_batch
from learner.rank import LearnerRank
from learner.rendezvous import Rendezvous
from tests.learner.specs import learner_spec

folder, port = sys.argv[1], int(sys.argv[2])
device = {"device": "cuda"} if "device" in inspect.signature(LearnerRank).parameters else {}
rank = LearnerRank(0, 1, Rendezvous("127.0.0.1", port), threads=1, timeout_s=60, **device)
rng = np.random.default_rng(0)
rows = [
    TrainingSequence(token_ids=rng.integers(3, 90, size=n), first_target=4, advantage=float(rng.normal()),
                     rollout_logprobs=np.full(n - 4, -4.5, np.float32))
    for n in (9, 14, 20, 12)
]
batch = make_batch(rows, ranks=1, mini_batches=2, micro_batch_tokens=30, length_norm="sequence", constant_length=16,
                   temperature=1.0, seed=0)
found = []
for stage in (0, 1, 2, 3):
    rank.open(learner_spec(folder, zero_stage=stage, dtype="bfloat16", lr=1e-3))
    stats = [rank.train(batch, "grpo") for _ in range(2)]
    model = rank.model
    found.append({
        "device": str(next(model.module.parameters()).device.type),
        "fused": all(bool(group["fused"]) for group in model.engine.optimizer.param_groups),
        "norms": [float(one.grad_norm) for one in stats],
        "logprobs": [float(x) for x in rank.logprobs(batch)[0][-2][:8]],
    })
print("FOUND", json.dumps(found))
rank.close()
"""


def test_fused_steps_are_the_same_at_every_zero_stage(tmp_path: Path) -> None:
    """A process of its own: DeepSpeed's group is made once in a process."""
    import socket

    build_model(build_spec(), iter(()), tmp_path / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(tmp_path / "model"), str(port)],
        capture_output=True,
        text=True,
        timeout=100,
        env={name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"},
        cwd=Path(__file__).parents[3],
        check=False,
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND")), "")
    assert line, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(line.removeprefix("FOUND "))
    assert [(one["device"], one["fused"]) for one in found] == [("cuda", True)] * 4
    assert found[0]["norms"][0] > 0
    for one in found[1:]:
        np.testing.assert_allclose(one["norms"], found[0]["norms"], rtol=0.02)
        np.testing.assert_allclose(one["logprobs"], found[0]["logprobs"], atol=0.05)
