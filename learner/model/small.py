"""A small Qwen2 and its tokenizer made from scratch, saved as an ordinary `transformers` folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rollout.data.thoughts import TAGS

END, PAD = "<|end|>", "<|pad|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """Shape of a small model and kind of its tokenizer."""

    tokenizer: Literal["characters", "bpe"]
    vocab_size: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    tied: bool
    max_tokens: int
    """Positions of the longest sequence."""
    seed: int
    """Seed of the random weights."""


def character_tokenizer() -> Any:
    """One token a byte, so one a character of ASCII, and one for each R1 tag: text and tokens map one to one."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    # `transformers` gives every qwen2 folder this class, so a tokenizer of another make would not come back as saved.
    # Byte-level BPE without a merge is a character tokenizer that loses nothing.
    vocabulary = {token: i for i, token in enumerate([PAD, END, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    return _with_tags(Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=END, eos_token=END, pad_token=PAD))


def bpe_tokenizer(texts: Iterator[str], vocab_size: int) -> Any:
    """A byte-level BPE trained on `texts`, split as Qwen2 splits; any text in NFC goes through it unchanged."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    special = {"unk_token": END, "eos_token": END, "pad_token": PAD}
    core = Qwen2Tokenizer(vocab={PAD: 0, END: 1}, merges=[], **special).backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    trained = json.loads(core.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = _with_tags(Qwen2Tokenizer(vocab=trained["vocab"], merges=merges, **special))
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant: {% endif %}"
    )
    return tokenizer


def build_model(spec: BuildSpec, texts: Iterator[str], folder: Path) -> int:
    """Write model, tokenizer and generation config to `folder`; returns the number of parameters."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = character_tokenizer() if spec.tokenizer == "characters" else bpe_tokenizer(texts, spec.vocab_size)
    torch.manual_seed(spec.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=spec.hidden,
            intermediate_size=spec.intermediate,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            num_key_value_heads=spec.kv_heads,
            max_position_embeddings=spec.max_tokens,
            tie_word_embeddings=spec.tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _with_tags(tokenizer: Any) -> Any:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return tokenizer
