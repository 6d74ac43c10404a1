"""What a model wrote, made harmless for the page: escaped as HTML, or as JSON for the script, which puts it in as text.

Text of a model gets onto the page by these two ways alone.
"""

import html
import json
import re


def as_html(text: str, limit: int) -> str:
    """Text of a model, cut to `limit` characters and escaped, its R1 tags set apart."""
    escaped = html.escape(cut(text, limit))
    return re.sub(r"(&lt;/?(?:think|answer)&gt;)", r'<span class="tag">\1</span>', escaped)


def as_json(data: object) -> str:
    """JSON that can stand inside a `<script>` element, whatever the texts in it hold."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def cut(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit`: the answer stands at the end."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[… {len(text) - limit:,} characters left out …]\n{text[-tail:]}"
