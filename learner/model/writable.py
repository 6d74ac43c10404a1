"""Whether a model can be written back as a Hugging Face folder, found out before it trains, and what is mended for that.

`transformers` reads more than it writes: a generation config with a temperature and no `do_sample`, say, or a temperature in
`config.json`. A stage that trains for hours must not learn that at its export.
"""

import tempfile
from pathlib import Path
from typing import Any

from rollout.errors import InputError


def make_writable(model: Any) -> None:
    """Move what is in the wrong place; a generation config that contradicts itself samples then, or loses what has no meaning."""
    from transformers import GenerationConfig

    held = getattr(model, "generation_config", None)
    misplaced = model.config._get_generation_parameters()
    for key, value in misplaced.items():
        delattr(model.config, key)
        if held is not None and getattr(held, key, None) is None:
            setattr(held, key, value)
    if held is None or _goes_together(held):
        return
    if held.pad_token_id is not None and held.pad_token_id < 0:
        held.pad_token_id = None
    if held.temperature == 0:  # greedy decoding, in the words of others
        held.temperature = None
    if (held.num_beams or 1) == 1:
        held.early_stopping = held.length_penalty = None
    if not _goes_together(held):
        held.do_sample = True
    if not _goes_together(held):
        ids = {key: getattr(held, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**ids)


def check_written_back(model: Any, path: str, *, trust_remote_code: bool) -> None:
    """Write all but the weights into a folder that is thrown away.

    Raises:
        InputError: it cannot be written, or the tokenizer has ids without a row in the embedding.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="rayzero-") as scratch:
        try:
            model.config.save_pretrained(scratch)
            if model.can_generate():
                model.generation_config.save_pretrained(scratch)
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
            tokenizer.save_pretrained(scratch)
        except (OSError, ValueError, TypeError, AttributeError, NotImplementedError) as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            raise InputError(
                f"model.path = {path!r} cannot be written back, as its export will be: {reason}"
            ) from problem
        assert Path(scratch, "config.json").is_file()
    rows, largest = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values(), default=0)
    if largest >= rows:
        raise InputError(
            f"model.path = {path!r}: the tokenizer has ids up to {largest}, the embedding {rows} rows; copy the tokenizer that "
            "belongs to the weights"
        )


def _goes_together(config: Any) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True
