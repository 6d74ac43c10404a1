"""The workload of the learner's benchmarks: groups of completions whose lengths have a long tail, and a small model.

Plain numpy, so that an interpreter without this project can read what `save` wrote.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Workload:
    prompts: list[np.ndarray]
    """[P] of token ids, 16 to 48 of them."""
    completions: list[np.ndarray]
    """[P × G] of token ids, prompt by prompt; geometric lengths of mean 48, capped at 256."""
    advantages: np.ndarray
    """[P × G] float32"""
    logprobs: list[np.ndarray]
    """[P × G] of the sampler's logprobs, float32."""

    @property
    def group_size(self) -> int:
        return len(self.completions) // len(self.prompts)

    @property
    def num_targets(self) -> int:
        return sum(map(len, self.completions))


def draw(vocab: int, prompts: int = 16, group_size: int = 8, seed: int = 0) -> Workload:
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(1 / 48, prompts * group_size), 256)
    lengths[0] = 256  # a batch whose longest is the cap, as nearly every batch of this size is
    return Workload(
        prompts=[rng.integers(2, vocab, n) for n in rng.integers(16, 49, prompts)],
        completions=[rng.integers(2, vocab, n) for n in lengths],
        advantages=rng.normal(size=len(lengths)).astype(np.float32),
        logprobs=[np.full(n, -np.log(vocab), np.float32) for n in lengths],
    )


def build_model(vocab: int, folder: Path) -> None:
    """A Qwen2 of 4 layers and hidden size 256, untied: 4M parameters without its two embeddings."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocab,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    ).save_pretrained(folder)


def padded(workload: Workload, rows: range) -> dict[str, np.ndarray]:
    """Prompts padded on the left and completions on the right, both to the longest of the whole workload.

    As the padded trainers do it: the batch is padded once, then cut into micro-batches.
    """
    asked, answered = max(map(len, workload.prompts)), max(map(len, workload.completions))
    shape = (len(rows), asked + answered)
    token_ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, row in enumerate(rows):
        prompt, completion = workload.prompts[row // workload.group_size], workload.completions[row]
        span = slice(asked - len(prompt), asked + len(completion))
        token_ids[i, span] = np.concatenate([prompt, completion])
        mask[i, span] = 1
    return {"token_ids": token_ids, "attention_mask": mask, "completion_mask": mask[:, asked:]}
