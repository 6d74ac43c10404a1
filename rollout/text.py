"""The text of a completion: what was sampled, special tokens such as `<think>` included, less the tokens that ended it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any


class CompletionText:
    """Token ids of a completion → the text that is scored."""

    def __init__(self, tokenizer: Any, ends: Collection[int]) -> None:
        """`ends`: ids of the tokens that end a completion or fill up behind its end."""
        self._tokenizer = tokenizer
        self._ends = frozenset(ends)

    @classmethod
    def of(cls, tokenizer: Any, generation_config: Mapping[str, Any]) -> "CompletionText":
        """With the ends that vLLM knows: the tokenizer's, and those of the model's generation config."""
        named = generation_config.get("eos_token_id")
        ids = [tokenizer.eos_token_id, tokenizer.pad_token_id, *(named if isinstance(named, Sequence) else [named])]
        return cls(tokenizer, [each for each in ids if each is not None])

    def __call__(self, token_ids: Sequence[int]) -> str:
        """Decode `token_ids`, [L]; nothing that stands before the end is left out or tidied up."""
        length = len(token_ids)
        while length and token_ids[length - 1] in self._ends:
            length -= 1
        text: str = self._tokenizer.decode(
            token_ids[:length],
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return text
