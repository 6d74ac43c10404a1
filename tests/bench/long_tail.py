"""The workload of the loop's benchmark that other trainers can run too: completions whose lengths have a long tail.

16 prompts a step, 8 completions each, lengths geometric with a mean of 48, cut at 256. Nobody forces a length: the model, a
random Qwen2 of 4M parameters, ends with the probability 1/48 after every token whatever stands before it, so that whoever
samples from it gets this law. At its learning rate that does not move.

This module needs no more than numpy at its top, so that an interpreter without this project can read what `write` wrote.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS, GROUP_SIZE, MAX_TOKENS, MEAN = 16, 8, 256, 48
LEARNING_RATE, BETAS = 1e-6, (0.9, 0.95)
VOCABULARY = 128
PAD, END = "<pad>", "<end>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def vowels(prompt: str, completion: str, reference: str) -> float:
    """The reward, the same for everybody: the share of characters that are vowels."""
    return sum(completion.count(letter) for letter in "aeiou") / max(len(completion), 1)


def write(folder: Path, steps: int) -> Path:
    """Model, tokenizer, `prompts.jsonl` and a recipe; returns the recipe's path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    questions = ["".join(rng.choice(list(LETTERS), n)) for n in rng.integers(16, 49, PROMPTS * steps)]
    lines = [json.dumps({"prompt": question}) for question in questions]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    _build(folder / "model")
    recipe = folder / "long-tail.toml"
    recipe.write_text(
        f"""
name = "long-tail"

[model]
path = "{folder / "model"}"
max_tokens = 512

[data]
sources.letters = {{ path = "{folder / "prompts.jsonl"}", answer_column = "" }}

[rollout]
group_size = {GROUP_SIZE}
max_tokens = {MAX_TOKENS}
max_sequences = {PROMPTS * GROUP_SIZE}

[rewards]
rubrics.default = {{ vowels = {{ name = "tests.bench.long_tail:vowels" }} }}

[learner]
lr = {LEARNING_RATE}
beta1 = {BETAS[0]}
beta2 = {BETAS[1]}
kl_coef = 0
micro_batch_tokens = 2048

[[stages]]
name = "rl"
kind = "grpo"
loop = {{ steps = {steps}, groups_per_step = {PROMPTS} }}
"""
    )
    return recipe


def read_prompts(folder: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()]


def _build(folder: Path) -> None:
    from transformers import GenerationConfig

    from tests.bench.workload import build_model

    tokenizer = _tokenizer()
    assert len(tokenizer) == VOCABULARY
    build_model(VOCABULARY, folder)
    _end_with(folder, 1 / MEAN)
    GenerationConfig(eos_token_id=1, pad_token_id=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    """One token a byte, of those bytes that fit the vocabulary; letters are among them."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    symbols = [PAD, END, *sorted(pre_tokenizers.ByteLevel.alphabet())][:VOCABULARY]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=END, eos_token=END, pad_token=PAD)


def _end_with(folder: Path, probability: float) -> None:
    """Give the end of a sequence this probability, after every token.

    The first channel of the residual stream is the same large number for every token, and no layer writes to it; after the
    last norm it stands well above the others. The end's row of the head reads this channel alone, as strongly as
    measured on random tokens.
    """
    import torch
    from transformers import Qwen2ForCausalLM

    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 2.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        tokens = torch.randint(2, VOCABULARY, (16, 256), generator=torch.Generator().manual_seed(0))
        states = model.model(tokens).last_hidden_state.flatten(0, 1)
        head = model.lm_head.weight
        head[0] = head[1] = 0
        others = (states @ head.T)[:, [0, *range(2, VOCABULARY)]].logsumexp(1)
        low, high = -5.0, 5.0
        while high - low > 1e-6:
            head[1, 0] = (low + high) / 2
            ended = torch.sigmoid((states @ head.T)[:, 1] - others)
            low, high = ((low + high) / 2, high) if ended.mean() < probability else (low, (low + high) / 2)
    assert 0.95 * probability < ended.min() <= ended.max() < 1.05 * probability, "contexts matter more than they should"
    model.save_pretrained(folder)
