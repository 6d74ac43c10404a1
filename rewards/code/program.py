"""The program of a response, and what has to stand before it. Linear in the length of the text; nothing is run."""

import ast
import re

from rewards.text.fences import fenced_blocks
from rewards.text.response import read_response

_PYTHON = re.compile(r"[{.]*py(?:thon)?[\d.]*(?:[^\w.-].*)?", re.IGNORECASE)


def program_of(completion: str, *, prompt: str = "") -> str:
    """The last Python fence of the reply, else the last fence there, else the answer between tags, else the reply.

    `prompt`: the completion's, which may have opened the thought.
    """
    response = read_response(prompt, completion)
    blocks = fenced_blocks(response.reply)
    for block in reversed(blocks):
        if _PYTHON.fullmatch(block.language):
            return block.text
    if blocks:
        return blocks[-1].text
    return response.answers[-1] if response.answers else response.reply


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
