"""A prompt and a response as a reward model reads them: which part, in which words, as which tokens.

Training and serving both come through here, so that what is scored is what was trained on.

A response is hostile. It is put into the model's chat template as text, whatever it holds: no special token of the
tokenizer's can be written in it, so it cannot end its turn and begin another.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rewards.text.response import question, read_response
from rollout.data.chat_template import literal
from rollout.errors import InputError

Pair = tuple[str, str]
"""A prompt and a response."""

Scope = Literal["answer", "response"]
"""Part of a response that is scored: the final answer alone, or the whole with its thought."""

MARKS = ("\ue000question\ue000", "\ue000response\ue000")


class PairTokens(NamedTuple):
    """A pair as the model reads it."""

    ids: list[int]
    types: list[int]
    """Number of the text, 0 or 1, that each token is of, for models that ask; empty for the others."""


def pair_of(prompt: str, completion: str, scope: Scope) -> Pair:
    """What is scored: the question in a rendered prompt, and of the completion what `scope` says.

    DeepSeek-R1 (arXiv:2501.12948, section 2.3.4) judges helpfulness by the final answer alone and harmlessness by the whole
    response.
    """
    return question(prompt), read_response(prompt, completion).answer if scope == "answer" else completion


class PairEncoder:
    """Pairs in a tokenizer's chat template, or as the tokenizer joins two texts where it has none."""

    def __init__(self, tokenizer: Any, named: str) -> None:
        """`named`: the model, in messages. Raises InputError when its template shows no answer."""
        self._tokenizer = tokenizer
        self._special = _special_tokens(tokenizer)
        self._frame = _frame(tokenizer, named)

    def encode(self, pairs: Sequence[Pair]) -> list[PairTokens]:
        """The tokens of pairs, of any length."""
        harmless = [(self._harmless(prompt), self._harmless(response)) for prompt, response in pairs]
        if not harmless:
            return []
        if self._frame is None:
            found = self._tokenizer(*(list(texts) for texts in zip(*harmless, strict=True)))
        else:
            before, between, after = self._frame
            texts = [before + prompt + between + response + after for prompt, response in harmless]
            found = self._tokenizer(texts, add_special_tokens=False)
        types = found.get("token_type_ids") or [[]] * len(harmless)
        return [PairTokens(list(ids), list(own)) for ids, own in zip(found["input_ids"], types, strict=True)]

    def _harmless(self, text: str) -> str:
        """The text with every special token in it broken up by a space."""
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text


def literal_template(before: str, between: str, after: str) -> str:
    """A chat template (Jinja) that writes a question and a response with these texts round them, and nothing else."""
    asked = f"{literal(before)} + message.content + {literal(between)}"
    return (
        "{% for message in messages %}{% if message.role == 'user' %}{{ "
        + asked
        + " }}{% else %}{{ message.content + "
        + literal(after)
        + " }}{% endif %}{% endfor %}"
    )


def _frame(tokenizer: Any, named: str) -> tuple[str, str, str] | None:
    """What the chat template writes before the question, between question and response, and after the response.

    None without a template. The template sees two marks in place of the texts: some templates drop the thought from what
    an assistant said, and what is scored is for the scope to say.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": MARKS[0]}, {"role": "assistant", "content": MARKS[1]}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    before, asked, rest = text.partition(MARKS[0])
    between, answered, after = rest.partition(MARKS[1])
    if not (asked and answered):
        raise InputError(f"reward model {named}: its chat template does not show a question and then a response")
    return before, between, after


def _special_tokens(tokenizer: Any) -> list[str]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({token for token in [*tokenizer.all_special_tokens, *added] if len(token) > 1}, key=len, reverse=True)
