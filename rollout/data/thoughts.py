"""The tags that divide a completion, and a thought that the prompt has opened already, as R1-style chat templates do.

What thought, reply and answer of a completion are is read by rewards/text/response.py alone.
"""

from rollout.errors import InputError

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def opens_thought(prompt: str) -> bool:
    """Whether the prompt itself ends with `<think>`: the completion begins inside the thought."""
    return prompt.rstrip().endswith(THINK_OPEN)


def completion_behind(prompt: str, given: str) -> str:
    """A completion that no policy wrote (an example, a response of a pair, a baseline) as one would stand behind its prompt.

    Where the prompt has opened a thought, the completion does not open it again, and one without a thought closes it.
    """
    if not opens_thought(prompt):
        return given
    text = given.lstrip()
    if text.startswith(THINK_OPEN):
        text = text.removeprefix(THINK_OPEN)
        return text.removeprefix("\n") if prompt.endswith("\n") else text
    return given if THINK_CLOSE in given else f"\n{THINK_CLOSE}\n\n{text}"


def learned_behind(prompt: str, given: str) -> str:
    """`completion_behind` for a completion that is to be learned.

    Raises:
        InputError: the prompt has closed a thought already, as with `enable_thinking = false`, and the completion begins with one.
    """
    if prompt.rstrip().endswith(THINK_CLOSE) and given.lstrip().startswith(THINK_OPEN):
        raise InputError(
            f"the prompt ends with a closed thought, but its completion begins with one of its own: {given.strip()[:40]!r}; let the "
            "template think (data.template_args), or take the thought out of the row"
        )
    return completion_behind(prompt, given)
