"""The program of a response, and what has to stand before it. Linear in the length of the text; nothing is run."""

import ast
import re

_PYTHON = re.compile(r"[{.]*py(?:thon)?[\d.]*(?:[^\w.-].*)?", re.IGNORECASE)
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)")
_LATE_FENCE = re.compile(r"[^`]*?()(`{3,})(py(?:thon)?[\d.]*\s*)", re.IGNORECASE)
"""Behind words of its line; only where it says that it is Python."""


def program_of(response: str, *, thinking: bool = False) -> str:
    """The last Python fence after the thinking part, else the last fence there, else everything there.

    `thinking`: the prompt opened the thinking part, so that the response only closes it.
    """
    _, closed, after = response.rpartition("</think>")
    if not closed and (thinking or "<think>" in _before_fences(response)):
        return ""  # it never came to an answer
    reply = after if closed else response
    blocks = _fences(reply)
    for language, text in reversed(blocks):
        if _PYTHON.fullmatch(language):
            return text
    if blocks:
        return blocks[-1][1]
    start, end = reply.rfind("<answer>"), reply.rfind("</answer>")
    return reply[start + len("<answer>") : end] if 0 <= start < end else reply


def _before_fences(text: str) -> str:
    """A program may well hold the word `<think>`."""
    return text[: min(len(text) if at < 0 else at for at in (text.find("```"), text.find("~~~")))]


def _fences(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block; one that nobody closed goes to the end. Linear in the text."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    content: list[str] = []
    for line in text.split("\n"):
        bare = line.strip().removeprefix("<answer>").removesuffix("</answer>")
        fence = _FENCE.fullmatch(line if len(bare) == len(line.strip()) else bare)
        if opened is None:
            opened, content = fence or _LATE_FENCE.fullmatch(line.rstrip()), []
        elif fence and _closes(fence, opened):
            blocks.append((opened[3].strip(), "\n".join(content)))
            opened = None
        else:
            content.append(line.removeprefix(opened[1]))
    if opened is not None:
        blocks.append((opened[3].strip(), _until_late_close(content, opened[2])))
    return blocks


def _closes(fence: re.Match[str], opened: re.Match[str]) -> bool:
    same = fence[2][0] == opened[2][0] and len(fence[2]) >= len(opened[2]) and not fence[3].strip()
    return same and len(fence[1]) < len(opened[1]) + 4  # deeper, it belongs to the program: a docstring with a fence


def _until_late_close(content: list[str], mark: str) -> str:
    """A block without a closing line: up to a line that has the mark at its end."""
    for index, line in enumerate(content):
        stripped = line.rstrip().removesuffix("</answer>").rstrip()
        if stripped.endswith(mark):
            return "\n".join([*content[:index], stripped.removesuffix(mark)])
    return "\n".join(content)


def complete(prompt: str, entry_point: str, code: str) -> str:
    """HumanEval: `code` is the function, after which the prompt's imports and helpers are still needed, or its body."""
    defines = re.search(
        rf"^(?:(?:async\s+)?def|class)\s+{re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=", code, re.M
    )
    if not defines:
        return prompt + code
    preamble = preamble_of(prompt, entry_point)
    return with_preamble(preamble, code)


def with_preamble(preamble: str, code: str) -> str:
    if not preamble.strip():
        return code
    future = re.compile(r"^from __future__ import .*$", re.M)  # has to come first
    return "\n".join([*future.findall(code), preamble + future.sub("", code)])


def preamble_of(prompt: str, entry_point: str) -> str:
    """What stands in the prompt before the function that is asked for; nothing where that is no Python."""
    start = re.search(rf"^(?:@.*\n)*(?:(?:async\s+)?def|class)\s+{re.escape(entry_point)}\b", prompt, re.M)
    preamble = prompt[: start.start()] if start else ""
    try:
        ast.parse(preamble)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return preamble
