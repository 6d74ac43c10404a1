"""What question a prompt asks, and what thought, reply and answer of a completion are. Every reward reads them here.

Thought: what stands before the last `</think>`. A thought that was opened and not closed (cut at the token limit) goes on
to the end and has no reply behind it; what stands before it counts. The prompt may have opened the thought, as R1-style
chat templates do. A `<think>` in a fenced block of the reply is text of a program and opens nothing; in a block that nobody
closed it does.

Reply: the rest. Answer: the inside of the reply's last `<answer>…</answer>`; one that is not closed is none.

All is linear in the length of the text and never fails: a part that is not there is empty.
"""

import re
from dataclasses import dataclass

from rewards.text.fences import fenced_blocks
from rollout.data.templates import PLACEHOLDER, R1_ZERO
from rollout.data.thoughts import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    completion_behind,
    opens_thought,
)

_R1_HEAD, _R1_TAIL = R1_ZERO.split(PLACEHOLDER)
_CHAT_MARK = re.compile(r"<[|｜][^<>|｜\n]{1,40}[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|</?think>")
_ROLE = re.compile(r"\s*(?:system|user|human|assistant|model|tool)\s*(?:\n|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Response:
    """A completion in its parts."""

    thought: str
    """Without the tags round it and the white space at its ends."""
    reply: str
    """As it is written: the white space in front may be the indentation of a program."""
    answers: tuple[str, ...]
    """The inside of every `<answer>…</answer>` of the reply, as it is written."""

    @property
    def answer(self) -> str:
        """What the user reads: the last of the answers, or the whole reply without one; no white space at its ends."""
        return (self.answers[-1] if self.answers else self.reply).strip()


def read_response(prompt: str, completion: str) -> Response:
    """The parts of a completion. Of the prompt only a `<think>` at its end matters."""
    thought, closed, reply = completion.rpartition(THINK_CLOSE)
    if not closed and opens_thought(prompt):
        thought, reply = completion, ""
    thought = thought.lstrip().removeprefix(THINK_OPEN)
    at = _unclosed_thought(reply)
    cut = reply[at:].removeprefix(THINK_OPEN)
    reply = reply[:at]
    return Response(f"{thought.strip()}\n{cut.strip()}".strip(), reply, _answers(reply))


def _unclosed_thought(text: str) -> int:
    """Where a thought begins, in a text that closes none; the length of the text where none begins."""
    at = text.find(THINK_OPEN)
    for block in fenced_blocks(text) if at >= 0 else ():
        if at < block.start:
            break
        if at < block.end and block.closed:
            at = text.find(THINK_OPEN, block.end)
    return at if at >= 0 else len(text)


def _answers(reply: str) -> tuple[str, ...]:
    found, position = [], 0
    while (end := reply.find(ANSWER_CLOSE, position)) >= 0:
        start = reply.rfind(ANSWER_OPEN, position, end)
        if start >= 0:
            found.append(reply[start + len(ANSWER_OPEN) : end])
        position = end + len(ANSWER_CLOSE)
    return tuple(found)


def without_thought(prompt: str, completion: str) -> str:
    """The reply alone, as a model would have given it at once; behind an empty thought where the prompt has opened one.

    Empty where there is nothing in the reply.
    """
    response = read_response(prompt, completion)
    if not response.answer:
        return ""
    reply = response.reply.strip()
    return completion_behind(prompt, reply)


def question(prompt: str) -> str:
    """The last question in a rendered prompt: without the R1-Zero preamble, the system turn and the chat markers.

    A prompt in a form that is not known here is returned as it is.
    """
    if prompt.startswith(_R1_HEAD):
        # Examples may stand before it in the same form.
        return prompt.rpartition(_R1_HEAD)[2].removesuffix(_R1_TAIL).strip()
    for piece in reversed(_CHAT_MARK.split(prompt)):
        text = _ROLE.sub("", piece, count=1) if _ROLE.match(piece) else piece
        if text.strip():
            return text.strip()
    return prompt.strip()
