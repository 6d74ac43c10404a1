"""Where a response states its final answer. Linear in the length of the text; nothing is evaluated."""

import re
from functools import lru_cache

from rewards.text.response import read_response
from rollout.errors import InputError

LAST_LINE = "last-line"
"""The pattern that takes the last line of the reply, for prompts that ask for a bare answer after some work."""
_MARK = re.compile(r"####+")

_SPACE = re.compile(
    r"\\(?P<phantom>[hv]?phantom|hspace\*?|rule\s*\{[^{}]*\})\s*(?=\{)|\\(?:quad|qquad|enspace|thinspace)(?![A-Za-z])|\\[ ,;:!_]"
    r"|\\(?:underline|text(?:bf|rm|it|sf|tt|normal)?|emph|math(?:rm|bf|it|sf)|mbox|square|blacksquare|Box|[lc]?dots)(?![A-Za-z])|[\s~{}_?…]|\.\.+"
)
"""Something that takes room and shows nothing, or a place to fill."""
_PLACE = re.compile(
    r"(?:\\(?:text(?:bf|rm|it|sf|tt|normal)?|emph|math(?:rm|bf|it|sf)|mbox)\s*\{\s*)?[\[<(]?(?:(?:your|the|my) )?(?:final )?"
    r"(?:answer|ans|result|solution)(?: here)?[\]>)]?\s*\}?",
    re.I,
)
"""What an instruction puts into a box."""
_BRACE = re.compile(r"(?<!\\)[{}]")
_MAX_BARE = 100
_PATTERN_WINDOW = 4096


def final_answer(response: str, pattern: str | None = None, *, prompt: str = "") -> str | None:
    """The answer that a response commits itself to; None when it gives none. Arguments as for `find_answers`."""
    found = find_answers(response, pattern, prompt=prompt)
    return found[-1] if found else None


def find_answers(response: str, pattern: str | None = None, *, prompt: str = "") -> tuple[str, ...]:
    """The final answers of a response, each once, the last one last; several different ones are hedging.

    All are sought in the reply (`rewards.text.response`). The first source that has anything is the only one:

    1. every `\\boxed{…}`, the innermost where they are nested;
    2. every `<answer>…</answer>`;
    3. what the pattern finds.

    What shows nothing (`\\boxed{}`, `\\boxed{\\phantom{2}}`, `\\boxed{\\square}`) is no answer; where the last of them shows nothing there is none.

    Args:
        response: the whole completion.
        pattern: a regular expression. With a group, the group of its last match is the answer; without one it is a mark,
            and the answer is what follows each match on its line. `last-line` takes the last line that is not empty.
            None looks for `####` and, where the reply holds nothing but one short line, takes that line. Only the
            last 4,096 characters are searched, since a regular expression may be slow on what a model can write.
        prompt: the response's, which may have opened the thought.
    """
    parts = read_response(prompt, response)
    found = _find_boxes(parts.reply) or parts.answers or _find_by_pattern(parts.reply, pattern)
    shown = ["" if _shows_nothing(text) else text.strip() for text in found]
    if not shown or not shown[-1]:
        return ()
    return tuple(reversed(dict.fromkeys(text for text in reversed(shown) if text)))


def check_pattern(pattern: str) -> None:
    """Raises InputError for what is no regular expression."""
    try:
        _compile(pattern)
    except re.error as problem:
        raise InputError(f"pattern = {pattern!r} is not a regular expression: {problem}") from None


def _shows_nothing(text: str) -> bool:
    """Whether a text leaves nothing to see, as in a box that a response asks to fill: `\\boxed{\\phantom{2}}`."""
    if _PLACE.fullmatch(text.strip()):
        return True
    at = 0
    while at < len(text) and (match := _SPACE.match(text, at)):
        at = match.end()
        if match["phantom"]:
            at = _behind_braces(text, at)
    return at >= len(text)


def _behind_braces(text: str, at: int) -> int:
    """Where the pair of braces that opens at `at` ends; `at` where it is not closed."""
    depth = 0
    for match in _BRACE.finditer(text, at):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return match.end()
    return at


# Every branch begins with a literal, which lets the search skip over everything else at the speed of memchr.
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<token>[^\s{}$\\]+))|\\.|\{|\}", re.S)


def _find_boxes(reply: str) -> list[str]:
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


def _find_by_pattern(reply: str, pattern: str | None) -> list[str]:
    if pattern == LAST_LINE:
        lines = reply.strip().splitlines()
        return lines[-1:]
    if pattern is None:
        return _find_behind_marks(reply, _MARK) or _find_bare_line(reply)
    expression = _compile(pattern)
    if expression.groups == 0:
        return _find_behind_marks(reply, expression)
    matches = list(expression.finditer(reply, max(0, len(reply) - _PATTERN_WINDOW)))
    return [matches[-1][1] or ""] if matches else []


def _find_behind_marks(reply: str, mark: re.Pattern[str]) -> list[str]:
    found = []
    window = reply[-_PATTERN_WINDOW:]
    for match in mark.finditer(window):
        rest = window[match.end() :].lstrip(" \t")
        found.append((rest.splitlines() or [""])[0])
    return found


def _find_bare_line(reply: str) -> list[str]:
    line = reply.strip() if len(reply) <= 2 * _MAX_BARE else ""
    return [line] if 0 < len(line) <= _MAX_BARE and "\n" not in line else []


@lru_cache(maxsize=64)
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
