"""From a conversation to the turns of the assistant that can be learned, through the model's own chat template.

Every turn is learned in the context that it would be sampled in: the messages before it, rendered as a prompt. Templates
render an earlier turn otherwise than the last one (thoughts of earlier turns are dropped, for example), so a turn is never
cut out of the rendering of the whole conversation. What the row says and the template drops is noticed: it is learned as the row
has it where the template's frame of a turn is known, or else refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollout.data.rows import Dialogue, Message, Row
from rollout.data.thoughts import THINK_CLOSE, THINK_OPEN, learned_behind, opens_thought
from rollout.data.tokens import prompt_tokens
from rollout.errors import InputError

TOKENIZE_BATCH = 1024
"""Texts that the tokenizer gets at a time."""

MARK = "\ue000content\ue000"
"""Stands in the place of a content, to see what a template writes round it."""

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
        InputError: the template refuses the conversation, drops something that the row says, or begins a turn otherwise when
            it asks for one.
    """
    places = [i for i, message in enumerate(row.messages) if message["role"] == "assistant"]
    turns = []
    for number, place in list(enumerate(places, 1))[0 if which == "all" else -1 :]:
        turn_id = row.row_id if len(places) == 1 else f"{row.row_id}#{number}"
        prompt = _render(row, row.messages[:place], tokenizer, ask=True)
        _check_context(row, row.messages[:place], prompt)
        turns.append(Turn(turn_id=turn_id, prompt=prompt, reply=_reply(row, place, prompt, tokenizer)))
    return turns


def dialogue_prompt(dialogue: Dialogue, tokenizer: Any, *, thoughts: bool = False) -> str:
    """A dialogue up to where the assistant begins to write. Raises InputError as `turns_of` does.

    Args:
        thoughts: whether the template must show those of earlier turns, too.
    """
    prompt = _render(dialogue, dialogue.messages, tokenizer, ask=True)
    _check_context(dialogue, dialogue.messages, prompt, thoughts)
    return prompt


def _reply(row: Row, place: int, prompt: str, tokenizer: Any) -> str:
    """What the assistant writes behind `prompt` in the turn at `place`: as the template renders it, or where that drops
    something, as the row has it between what the template writes round a turn. Raises InputError where neither is to be had.
    """
    message = row.messages[place]
    whole = _render(row, row.messages[: place + 1], tokenizer, ask=False)
    begins = whole.startswith(prompt)
    # Line ends after the closing mark belong to what comes next: the model stops at the mark.
    reply = whole[len(prompt) :].rstrip() if begins else ""
    missing = _missing(_said(message), reply)
    if begins and not missing:
        return reply
    if not message.get("tool_calls"):
        marked = _render(row, [*row.messages[:place], {**message, "content": MARK}], tokenizer, ask=False)
        before, shown, closing = marked.rpartition(MARK)
        opened = opens_thought(prompt) and prompt.rstrip().removesuffix(THINK_OPEN) == before
        if shown and (before == prompt or opened):
            try:
                return learned_behind(prompt, as_text(message)) + closing.rstrip()
            except InputError as problem:
                raise InputError(f"{_named(row)}{problem}") from None
    if not begins:
        raise InputError(
            f"{_named(row)}the chat template of the model ends a prompt with {prompt[-40:]!r}, but writes a turn of the "
            "assistant otherwise, so nothing says where the turn begins; give the rows as prompt and completion"
        )
    assert missing is not None
    raise InputError(_drops(row, place, missing))


def _check_context(row: Row | Dialogue, messages: Sequence[Message], prompt: str, thoughts: bool = False) -> None:
    """Raises InputError when a template leaves out what was said before, or the tools. It may leave out earlier thoughts, unless
    `thoughts` asks for them.
    """
    for place, message in enumerate(messages):
        said = _said(message)
        if missing := _missing([each for each in said if thoughts or each[0] != "thought"], prompt):
            raise InputError(_drops(row, place, missing))
    for tool in row.tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in prompt:
            raise InputError(
                f"{_named(row)}the chat template of the model does not show the tool {name!r} of the row; use a model whose "
                "template reads `tools`, or remove the column"
            )


def _drops(row: Row | Dialogue, place: int, missing: tuple[str, str]) -> str:
    what, text = missing
    role = row.messages[place]["role"]
    return (
        f"{_named(row)}the chat template of the model drops the {what} of message {place + 1} ({role}): {text[:60]!r}; use a "
        "model whose template keeps it, or give the rows as prompt and completion"
    )


def _named(row: Row | Dialogue) -> str:
    """The row in front of a message; a question by itself is named by who asks it."""
    return f"row {row.row_id}: " if row.row_id else ""


def _said(message: Message) -> list[tuple[str, str]]:
    """(what it is, text) of everything that a message says."""
    before, closed, content = message["content"].rpartition(THINK_CLOSE)
    thoughts = [before.rpartition(THINK_OPEN)[2] if closed else "", str(message.get("reasoning_content") or "")]
    said = [("thought", thought) for thought in thoughts] + [("content", content)]
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        said += [("tool call", str(text)) for text in (function.get("name", ""), *_leaves(function.get("arguments")))]
    return [(what, text) for what, text in said if text.strip()]


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers in a value, as JSON writes them, without quotes."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif value is not None:
        yield json.dumps(value, ensure_ascii=False).strip('"')


def _missing(said: Sequence[tuple[str, str]], text: str) -> tuple[str, str] | None:
    """The first thing that a text does not hold; white space and the way in which JSON escapes letters aside."""
    held = " ".join(text.split())
    for what, each in said:
        spelt = (" ".join(each.split()), json.dumps(" ".join(each.split())).strip('"'))
        if not any(own in held for own in spelt):
            return what, each
    return None


def as_text(message: Message) -> str:
    """A message of the assistant as a model writes it."""
    thought = str(message.get("reasoning_content") or "").strip()
    return f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{message['content']}" if thought else message["content"]


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


def _render(row: Row | Dialogue, messages: Sequence[Message], tokenizer: Any, *, ask: bool) -> str:
    try:
        return rendered(messages, tokenizer, tools=row.tools, ask=ask)
    except InputError as problem:
        raise InputError(f"{_named(row)}{problem}") from None


def rendered(messages: Sequence[Message], tokenizer: Any, *, tools: Sequence[Mapping[str, Any]] = (), ask: bool) -> str:
    """Messages in the chat template of a tokenizer. Raises InputError where it refuses them.

    Args:
        ask: whether the assistant is to go on.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=ask
            )
        )
    except (TemplateError, TypeError, KeyError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        line = f" (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else ""
        said = str(getattr(error, "message", None) or error).strip().partition("\n")[0]
        raise InputError(f"the chat template of the model refuses it: {said}{line}") from None
