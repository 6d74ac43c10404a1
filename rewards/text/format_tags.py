"""The R1 form: exactly one think part, then exactly one answer part, nothing else (DeepSeek-R1, arXiv:2501.12948)."""

import unicodedata

from rewards.text.response import read_response
from rollout.data.thoughts import ANSWER_CLOSE, ANSWER_OPEN, TAGS, THINK_OPEN, opens_thought


def format_tags(
    prompt: str,
    completion: str,
    reference: str = "",
    *,
    strict: bool = True,
    answer_tags: bool = True,
    opened: bool | None = None,
) -> float:
    """1.0 when the completion is `<think>…</think><answer>…</answer>`, else 0.0. Linear in the length of the text.

    Every tag stands there once, in this order, and both parts hold something that can be seen. White space around the
    parts is always free.

    Args:
        prompt: looked at only for a `<think>` at its end.
        completion: the text that is scored.
        reference: not used.
        strict: nothing may stand before, between or after the parts. `False` forgives exactly that: other text before
            the think part, between the parts and after the answer part. Missing, repeated, nested or crossed tags,
            an empty part and tags in other letters are never forgiven.
        answer_tags: `False` is the form of chat models that think first: the answer is all that follows `</think>`,
            and answer tags are as wrong as a second thought.
        opened: whether the prompt has opened the thought already, so that the completion must not; `None` looks
            whether the prompt ends with `<think>`.
    """
    if opens_thought(prompt) if opened is None else opened:
        completion = THINK_OPEN + completion
    counts = (1, 1, 1, 1) if answer_tags else (1, 1, 0, 0)
    small = completion.lower()
    for tag, count in zip(TAGS, counts, strict=True):
        # A tag in capitals is none, and yet a second one beside the right one.
        if completion.count(tag) != count or small.count(tag) != count:
            return 0.0
    before, opening, rest = completion.partition(THINK_OPEN)
    # Each tag is there once: one that stood too early is missing in what stands behind the opening one.
    response = read_response(opening, rest)
    around, shown = before, response.reply
    if answer_tags:
        if not response.answers:
            return 0.0
        shown = response.answers[0]
        around += response.reply.replace(f"{ANSWER_OPEN}{shown}{ANSWER_CLOSE}", "")
    if strict and around.strip():
        return 0.0
    return 1.0 if _shows(response.thought) and _shows(shown) else 0.0


_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols by their category that are drawn as nothing."""


def _shows(part: str) -> bool:
    """Whether anything in it can be seen: no white space, no control or format signs alone."""
    return any(unicodedata.category(sign)[0] not in "CZ" and sign not in _BLANK for sign in part)
