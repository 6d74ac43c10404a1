"""Qwen2 models with random weights, made on the card: shapes of published ones, and a toy."""

import itertools
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.gpu_parts.bench import Bench


@dataclass(frozen=True, kw_only=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int


SHAPES = {
    "0.5b": Shape(hidden=896, layers=24, heads=14, kv_heads=2, intermediate=4864, vocab=151_936),
    "1.5b": Shape(hidden=1536, layers=28, heads=12, kv_heads=2, intermediate=8960, vocab=151_936),
    "toy": Shape(hidden=128, layers=2, heads=4, kv_heads=2, intermediate=256, vocab=1024),
}
"""Those of Qwen2.5-0.5B and Qwen2.5-1.5B; `toy` takes their place on the CPU."""


def model_folder(bench: Bench, name: str, max_tokens: int = 65_536) -> str:
    """A folder with config, weights in bfloat16, tokenizer and generation config; made once for all parts.

    Drawn as `transformers` draws them, so that a next token is nearly uniform and a completion hardly ever ends by itself.
    """
    name = "toy" if bench.tiny else name
    folder = bench.work / "models" / name
    if folder.exists():
        return str(folder)
    began = time.monotonic()
    scratch = folder.with_name(name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    _write(SHAPES[name], scratch, bench.device, max_tokens)
    scratch.rename(folder)
    print(f"model {name} made in {time.monotonic() - began:.1f} s", flush=True)
    return str(folder)


def _write(shape: Shape, folder: Path, device: str, max_tokens: int) -> None:
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer(shape.vocab)
    assert len(tokenizer) == shape.vocab, f"{len(tokenizer)} tokens in place of {shape.vocab}"
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        bos_token_id=None,
        **ends,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()


def _tokenizer(vocab: int) -> Any:
    """A character tokenizer as learner/model/small.py makes it, filled up with tokens that no text has: completions are
    drawn from all of them, and are to cost what decoding costs."""
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    from learner.model.small import END, PAD
    from rollout.data.thoughts import TAGS

    names = [PAD, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    more = ("".join(word) for size in (3, 4) for word in itertools.product(letters, repeat=size))
    names += itertools.islice(more, vocab - len(names) - len(TAGS))
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=END, eos_token=END, pad_token=PAD)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return tokenizer
