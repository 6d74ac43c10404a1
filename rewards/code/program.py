"""The program of a response, and what has to stand before it. Linear in the length of the text; nothing is run."""

import ast
import re
from collections.abc import Callable

from rewards.code.solution import Asked, find_solution
from rewards.text.fences import fenced_blocks
from rewards.text.response import read_response

_PYTHON = re.compile(r"[{.]*py(?:thon)?[\d.]*(?:[^\w.-].*)?", re.IGNORECASE)


_MOST_BLOCKS = 32
"""Blocks that are looked at, from the last: more is no answer, and each is compared with those before it."""


def program_of(completion: str, *, prompt: str = "", asked: Callable[[], Asked] | None = None) -> str:
    """The fenced block of the reply that holds the solution; without any, the answer between tags, else the reply.

    `prompt`: the completion's, which may have opened the thought. `asked` says what the tests need of the program; where it
    is not known, or no block has it, the last Python block is taken, else the last block.
    """
    response = read_response(prompt, completion)
    blocks = fenced_blocks(response.reply)
    if not blocks:
        return response.answers[-1] if response.answers else response.reply
    python = [block.text for block in blocks if _PYTHON.fullmatch(block.language)]
    if asked is not None and len(blocks) > 1:
        unnamed = [block.text for block in blocks if not block.language or _PYTHON.fullmatch(block.language)]
        found = find_solution(unnamed[-_MOST_BLOCKS:], asked())
        if found:
            return found
    return python[-1] if python else blocks[-1].text


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
