"""Where a response states its final answer. Linear in the length of the text; nothing is evaluated."""

import re
from functools import lru_cache

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

LAST_LINE = "last-line"
"""The pattern that takes the last line of the reply, for prompts that ask for a bare answer after some work."""
_MARK = re.compile(r"####+")

_MAX_BARE = 100
_PATTERN_WINDOW = 4096


def final_answer(response: str, pattern: str | None = None, *, in_thought: bool = False) -> str | None:
    """The answer that a response commits itself to; None when it gives none. Arguments as for `find_answers`."""
    found = find_answers(response, pattern, in_thought=in_thought)
    return found[-1] if found else None


def find_answers(response: str, pattern: str | None = None, *, in_thought: bool = False) -> tuple[str, ...]:
    """The final answers of a response, each once, the last one last; several different ones are hedging.

    All are sought outside the thinking part (`reply_of`). The first source that has anything is the only one:

    1. every `\\boxed{…}`, the innermost where they are nested;
    2. every `<answer>…</answer>`;
    3. what the pattern finds.

    Where the last of them is empty there is no answer.

    Args:
        response: the whole completion.
        pattern: a regular expression. With a group, the group of its last match is the answer; without one it is a mark,
            and the answer is what follows each match on its line. `last-line` takes the last line that is not empty.
            None looks for `####` and, where the reply holds nothing but one short line, takes that line. Only the
            last 4,096 characters are searched, since a regular expression may be slow on what a model can write.
        in_thought: the prompt ended with an opening `<think>`, so that the response begins inside the thought.
    """
    reply = reply_of(response, in_thought=in_thought)
    found = _boxed(reply) or _tagged(reply) or _by_pattern(reply, pattern)
    distinct = dict.fromkeys(reversed([text.strip() for text in found]))
    answers = tuple(reversed(distinct))
    return answers if answers and answers[-1] else ()


def reply_of(response: str, *, in_thought: bool = False) -> str:
    """What stands outside the thinking part: after the last `</think>`, and before a `<think>` that is never closed.

    A response that ends inside its thought has said nothing outside of it.
    """
    _, closed, after = response.rpartition(THINK_CLOSE)
    if in_thought and not closed:
        return ""
    return after.partition(THINK_OPEN)[0]


# Every branch begins with a literal, which lets the search skip over everything else at the speed of memchr.
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<token>[^\s{}$\\]+))|\\.|\{|\}", re.S)


def _boxed(reply: str) -> list[str]:
    start = min((at for at in (reply.find("\\boxed"), reply.find("\\fbox")) if at >= 0), default=-1)
    if start < 0:
        return []
    boxes: list[str] = []
    opened: list[int] = []  # where the content begins, or -1 for a brace that is no box
    last_inner = -1  # where the last closed box began: a box around it is not the innermost
    for match in _BOX.finditer(reply, start):
        text = match[0]
        if text == "{":
            opened.append(-1)
        elif text == "}":
            began = opened.pop() if opened else -1
            if began > last_inner:
                boxes.append(reply[began : match.start()])
            last_inner = max(last_inner, began)
        elif match["token"]:
            boxes.append(match["token"])
            last_inner = match.start()
        elif len(text) > 2:
            opened.append(match.end())
    return boxes


def _tagged(reply: str) -> list[str]:
    found, position = [], 0
    while (end := reply.find("</answer>", position)) >= 0:
        start = reply.rfind("<answer>", position, end)
        if start >= 0:
            found.append(reply[start + len("<answer>") : end])
        position = end + len("</answer>")
    return found


def _by_pattern(reply: str, pattern: str | None) -> list[str]:
    if pattern == LAST_LINE:
        lines = reply.strip().splitlines()
        return lines[-1:]
    if pattern is None:
        return _marked(reply, _MARK) or _bare(reply)
    expression = _compiled(pattern)
    if expression.groups == 0:
        return _marked(reply, expression)
    matches = list(expression.finditer(reply, max(0, len(reply) - _PATTERN_WINDOW)))
    return [matches[-1][1] or ""] if matches else []


def _marked(reply: str, mark: re.Pattern[str]) -> list[str]:
    found = []
    window = reply[-_PATTERN_WINDOW:]
    for match in mark.finditer(window):
        rest = window[match.end() :].lstrip(" \t")
        found.append((rest.splitlines() or [""])[0])
    return found


def _bare(reply: str) -> list[str]:
    line = reply.strip() if len(reply) <= 2 * _MAX_BARE else ""
    return [line] if 0 < len(line) <= _MAX_BARE and "\n" not in line else []


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
