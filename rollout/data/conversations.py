"""From a conversation to the turns of the assistant that can be learned, through the model's own chat template.

Every turn is learned in the context that it would be sampled in: the messages before it, rendered as a prompt. Templates
render an earlier turn otherwise than the last one (thoughts of earlier turns are dropped, for example), so a turn is never
cut out of the rendering of the whole conversation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollout.data.rows import Message, Row
from rollout.data.tokens import prompt_tokens
from rollout.errors import InputError

TOKENIZE_BATCH = 1024
"""Texts that the tokenizer gets at a time."""

WhichTurns = Literal["all", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of the assistant."""

    turn_id: str
    """Id of the row, and `#` with the number of the turn, from 1, where the conversation has several."""
    prompt: str
    """Everything before the turn, up to where the assistant begins to write."""
    reply: str
    """What the assistant writes, up to what the template closes a turn with."""


def turns_of(row: Row, tokenizer: Any, which: WhichTurns) -> list[Turn]:
    """All turns of the assistant in a conversation, or the last alone; what a user says after it is not used.

    Raises:
        InputError: the template refuses the conversation, or begins a turn otherwise when it asks for one.
    """
    places = [i for i, message in enumerate(row.messages) if message["role"] == "assistant"]
    turns = []
    for number, place in list(enumerate(places, 1))[0 if which == "all" else -1 :]:
        prompt = _render(row, row.messages[:place], tokenizer, ask=True)
        whole = _render(row, row.messages[: place + 1], tokenizer, ask=False)
        if not whole.startswith(prompt):
            raise InputError(
                f"row {row.row_id}: the chat template of the model ends a prompt with {prompt[-40:]!r}, but writes a turn "
                "of the assistant otherwise, so nothing says where the turn begins; give the rows as prompt and completion"
            )
        turn_id = row.row_id if len(places) == 1 else f"{row.row_id}#{number}"
        # Line ends after the closing mark belong to what comes next: the model stops at the mark.
        turns.append(Turn(turn_id=turn_id, prompt=prompt, reply=whole[len(prompt) :].rstrip()))
    return turns


def tokenised_turns(turns: Sequence[Turn], tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    """Tokens of every turn, in order: (token ids of prompt and reply, number of those of the prompt).

    The prompt's tokens are exactly those that an engine is given, and the last is the end-of-sequence token, at which it
    stops, whether the template closes a turn with it or not.
    """
    for start in range(0, len(turns), TOKENIZE_BATCH):
        batch = turns[start : start + TOKENIZE_BATCH]
        prompts = prompt_tokens(tokenizer, [turn.prompt for turn in batch])
        wholes = prompt_tokens(tokenizer, [turn.prompt + turn.reply for turn in batch])
        replies = tokenizer([turn.reply for turn in batch], add_special_tokens=False)["input_ids"]
        for prompt, whole, reply in zip(prompts, wholes, replies, strict=True):
            # A token may reach over the boundary (a space that belongs to the word after it); sampled it never does.
            # Where none does, the reply in its place is right: alone it might get a space in front (SentencePiece).
            token_ids = list(whole if whole[: len(prompt)] == prompt else prompt + reply)
            if token_ids[-1:] != [tokenizer.eos_token_id]:
                token_ids.append(tokenizer.eos_token_id)
            yield token_ids, len(prompt)


def _render(row: Row, messages: Sequence[Message], tokenizer: Any, *, ask: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask))
    except (TemplateError, TypeError, KeyError) as error:
        raise InputError(f"row {row.row_id}: the chat template of the model refuses it: {error}") from None
