"""From the text of a prompt to the tokens that the policy is given."""

from collections.abc import Sequence
from typing import Any

PROBE = "a 1"
"""Text that shows what a tokenizer writes round one."""


def prompt_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """[P] token ids of every prompt: what the tokenizer opens a text with stands once at the beginning, whether the text has
    it already (as most chat templates do) or not, and nothing that would end the text stands at the end.
    """
    if not texts:
        return []
    opening = opening_of(tokenizer)
    ids = [list(own) for own in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    return [own if own[: len(opening)] == opening else [*opening, *own] for own in ids]


def opening_of(tokenizer: Any) -> list[int]:
    """Ids of what a tokenizer writes before every text, such as a begin-of-sequence token; empty where it writes nothing."""
    plain, whole = (list(tokenizer([PROBE], add_special_tokens=added)["input_ids"][0]) for added in (False, True))
    starts = (at for at in range(len(whole) - len(plain) + 1) if whole[at : at + len(plain)] == plain)
    return whole[: next(starts, 0)]
