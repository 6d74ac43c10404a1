"""What makes text of models, recipes and files harmless on the page.

Such text gets onto the page by two ways alone: a template writes it (render.py), where it passes through `harmless`
and is escaped as HTML, or the script of the page gets it as JSON from `as_json` and puts it in as text.
"""

import json
import re
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

_OBEYED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and line ends, and Unicode's Bidi_Control characters, which turn text around."""
_TAG = re.compile("(</?(?:think|answer)>)")


def harmless(value: Any) -> Any:
    """The value of an expression as a template writes it: a string with the characters that a reader would not see and
    a browser would obey written out, such as `\\u202e`; anything else as it is, markup of the templates included.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def as_json(data: object) -> Markup:
    """JSON that can stand inside a `<script>` element or a single-quoted attribute, whatever the texts in it hold.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    return htmlsafe_json_dumps(_all_harmless(data), dumps=_dump)


def _dump(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _all_harmless(data: object) -> object:
    if isinstance(data, dict):
        return {harmless(key): _all_harmless(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_all_harmless(value) for value in data]
    return harmless(data)


def cut(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit`: the answer stands at the end."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[… {len(text) - limit:,} characters left out …]\n{text[-tail:]}"


def split_tags(text: str) -> list[str]:
    """Text of a model in pieces, of which every second one is an R1 tag, to be set apart."""
    return _TAG.split(text)
