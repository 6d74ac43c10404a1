"""The parts of a prompt and of a completion that rewards look at: question, thought, reply, final answer.

All are linear in the length of the text and never fail: a part that is not there is empty.
"""

import re

from rollout.data.templates import PLACEHOLDER, R1_ZERO

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

_R1_HEAD, _R1_TAIL = R1_ZERO.split(PLACEHOLDER)
_CHAT_MARK = re.compile(r"<[|｜][^<>|｜\n]{1,40}[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|</?think>")
_ROLE = re.compile(r"\s*(?:system|user|human|assistant|model|tool)\s*(?:\n|\Z)", re.IGNORECASE)


def opens_thought(prompt: str) -> bool:
    """Whether the prompt itself ends with `<think>`, as R1-style chat templates write it: the completion does not."""
    return prompt.rstrip().endswith(THINK_OPEN)


def split_thought(prompt: str, completion: str) -> tuple[str, str]:
    """Thought and reply: what stands before and behind the last `</think>`, without the tags round the thought.

    A thought that was opened and not closed (cut at `max_tokens`) has no reply; a completion that neither it nor its
    prompt opened a thought in is all reply.
    """
    thought, closed, reply = completion.rpartition(THINK_CLOSE)
    if not closed:
        opened = opens_thought(prompt) or completion.lstrip().startswith(THINK_OPEN)
        thought, reply = (completion, "") if opened else ("", completion)
    return thought.lstrip().removeprefix(THINK_OPEN).strip(), reply.strip()


def answer_part(prompt: str, completion: str) -> str:
    """What the user reads: the inside of the reply's last `<answer>…</answer>`, or the whole reply without such a part."""
    _, reply = split_thought(prompt, completion)
    start = reply.rfind(ANSWER_OPEN)
    end = reply.find(ANSWER_CLOSE, start)
    return reply if start < 0 or end < 0 else reply[start + len(ANSWER_OPEN) : end].strip()


def prompt_of_given(prompt: str, response: str) -> str:
    """The prompt behind which a response that no policy wrote is read.

    Where the prompt opens a thought that the response does not close, the response has none and is a reply from its first
    word; behind that prompt it would be a thought without a reply.
    """
    if opens_thought(prompt) and THINK_CLOSE not in response:
        return prompt.rstrip().removesuffix(THINK_OPEN)
    return prompt


def without_thought(prompt: str, completion: str) -> str:
    """The reply alone, as a model would have given it at once; behind an empty thought where the prompt has opened one.

    Empty where there is nothing in the reply.
    """
    if not answer_part(prompt, completion):
        return ""
    _, reply = split_thought(prompt, completion)
    return f"\n{THINK_CLOSE}\n\n{reply}" if opens_thought(prompt) else reply


def question(prompt: str) -> str:
    """The last question in a rendered prompt: without the R1-Zero preamble, the system turn and the chat markers.

    A prompt in a form that is not known here is returned as it is.
    """
    if prompt.startswith(_R1_HEAD):
        return prompt.removeprefix(_R1_HEAD).removesuffix(_R1_TAIL).strip()
    for piece in reversed(_CHAT_MARK.split(prompt)):
        text = _ROLE.sub("", piece, count=1) if _ROLE.match(piece) else piece
        if text.strip():
            return text.strip()
    return prompt.strip()
