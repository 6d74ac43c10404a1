"""A small Qwen2 and its tokenizer made from scratch, saved as an ordinary `transformers` folder."""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    tokenizer: Literal["characters", "bpe"]
    vocab_size: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    tied: bool
    max_tokens: int
    """Longest sequence (positions)."""
    seed: int
    """Of the random weights."""


def character_tokenizer() -> Any:
    """One token a printable ASCII character, one for each R1 tag, so that text and tokens map one to one."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    characters = [c for c in string.printable if c.isprintable() or c == "\n"]
    vocabulary = {token: i for i, token in enumerate([PAD, END, UNKNOWN, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return _wrap(tokenizer)


def bpe_tokenizer(texts: Iterator[str], vocab_size: int) -> Any:
    """A byte-level BPE trained on `texts`: any text goes through it unchanged."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    wrapped = _wrap(tokenizer)
    wrapped.chat_template = (
        "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant: {% endif %}"
    )
    return wrapped


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


def _wrap(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
