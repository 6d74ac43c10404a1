"""What of a text is prose, and in which script each of its words is written. One pass each, linear in the length.

Left out are code blocks, inline code, LaTeX formulas and commands, tags, addresses, numbers and identifiers: they are in
nobody's language. A left-out span whose letters are mostly not Latin is prose in disguise and stays.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_RANGES = {
    "latin": "A-Za-zªºÀ-ÖØ-öø-ʯḀ-ỿⱠ-Ɀ꜠-ꟿ",
    "greek": "Ͱ-Ͽἀ-῿",
    "cyrillic": "Ѐ-ԯᲀ-ᲈꙀ-ꚟ",
    "armenian": "Ա-և",
    "georgian": "Ⴀ-ჿᲐ-Ჿ",
    "hebrew": "\u0591-\u05f4",
    "arabic": "\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
    "devanagari": "\u0900-\u0963\u0970-\u097f",
    "bengali": "\u0980-\u09e3\u09f0-\u09fe",
    "gurmukhi": "\u0a01-\u0a5e\u0a70-\u0a76",
    "gujarati": "\u0a81-\u0ae3\u0af0-\u0aff",
    "tamil": "\u0b82-\u0be3",
    "telugu": "\u0c00-\u0c63",
    "kannada": "\u0c80-\u0ce3",
    "malayalam": "\u0d00-\u0d63",
    "sinhala": "\u0d81-\u0df3",
    "ethiopic": "\u1200-\u137c",
    "thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "lao": "\u0e81-\u0ece",
    "khmer": "\u1780-\u17d3",
    "burmese": "\u1000-\u103f\u1050-\u109f",
    "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "kana": "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff",
    "han": "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
}
"""Letters (and the marks that belong to them) by script, as ranges of a character class. From the Unicode blocks."""

_BY_CHARACTER = {"han", "kana", "hangul", "thai", "lao", "khmer", "burmese"}
"""Scripts whose running text has no word spaces, and Hangul beside them: every character counts as one word."""

_WORD = re.compile(
    r"(?=[A-Za-z.!?;:\n]|[^\x00-\x7f])(?:"  # only to pass quickly over what begins nothing
    + r"(?P<stop>[.!?;:。！？；：…।؟\n])|"
    + "|".join(f"(?P<{script}>[{ranges}]++(?:['’][{ranges}]++)*+)" for script, ranges in _RANGES.items())
    + r"|(?P<other>[^\W\d_]++))"
)
_ASCII_TOKEN = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z0-9_]++")
_IDENTIFIER = re.compile(r"[0-9_]|[a-z][A-Z]")
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|lg|exp|sqrt|max|min|mod|gcd|lcm")
_FENCE = re.compile(r"```+|~~~+")
_INLINE = re.compile(r"`[^`\n]++`|\$(?!\s)[^$\n]++(?<!\s)\$(?!\d)")
_MATH_OPEN = re.compile(r"\\[\[(]|\\begin\{[A-Za-z]{1,20}\*?\}")
_MATH_CLOSE = re.compile(r"\\[\])]|\\end\{[A-Za-z]{1,20}\*?\}")
_COMMAND = re.compile(r"\\(?:begin|end)\{[A-Za-z]{1,20}+\*?\}|\\[A-Za-z]++")
_NOISE = re.compile(r"</?[A-Za-z][^<>\n]{0,80}+>|(?:https?://|www\.)\S++|(?<!\S)[^\s@]++@\S++")
_LATIN_LETTER = re.compile(f"[{_RANGES['latin']}]")
_OTHER_LETTER = re.compile(f"(?![{_RANGES['latin']}{_RANGES['greek']}])[^\\W\\d_]")


class Word(NamedTuple):
    text: str
    script: str
    """A key of the table of ranges, or `other`."""
    weight: int
    """1; the number of characters where characters are counted."""


def sentences(text: str) -> Iterator[list[Word]]:
    """The words of each sentence or line that has some. Words of one letter (variables, mostly) are left out."""
    found: list[Word] = []
    for match in _WORD.finditer(_prose(text)):
        script, word = match.lastgroup or "other", match.group()
        if script == "stop":
            if found:
                yield found
            found = []
        elif script in _BY_CHARACTER:
            found.append(Word(word, script, len(word)))
        elif len(word) > 1:
            found.append(Word(word, script, 1))
    if found:
        yield found


def split_code(text: str) -> tuple[str, list[str]]:
    """The text without its fenced blocks, and the blocks. A block that is not closed runs to the end of the text."""
    pieces = _FENCE.split(text)
    return "\n".join(pieces[::2]), pieces[1::2]


def _prose(text: str) -> str:
    # Compatibility forms (full-width or mathematical letters) are the letters that they show. A few of them are whole
    # sentences in one character: a text that swells is not meant to be read.
    shown = unicodedata.normalize("NFKC", text)
    text = shown if len(shown) <= 2 * len(text) else text
    outside, blocks = split_code(text)
    text = "\n".join([outside, *(block for block in blocks if _is_disguised(block))])
    text = _without(text, "$$")
    text = "\n".join(_display_math(text))
    text = _INLINE.sub(lambda match: match.group() if _is_disguised(match.group()) else " ", text)
    text = _NOISE.sub(" ", _COMMAND.sub(" ", text))
    return _ASCII_TOKEN.sub(lambda match: " " if _is_symbol(match.group()) else match.group(), text)


def _without(text: str, mark: str) -> str:
    """Without the spans between pairs of `mark`; the last one of an odd number of marks opens nothing."""
    pieces = text.split(mark)
    end = len(pieces) - (len(pieces) % 2 == 0)
    kept = [piece for i, piece in enumerate(pieces) if i % 2 == 0 or i >= end or _is_disguised(piece)]
    return " ".join(kept)


def _display_math(text: str) -> Iterator[str]:
    """What is not between an opening like `\\[` and the next closing. Environments inside one another are one."""
    head, *pieces = _MATH_OPEN.split(text)
    yield head
    for piece in pieces:
        close = _MATH_CLOSE.search(piece)
        if close is None or _is_disguised(piece[: close.start()]):
            yield piece
        else:
            yield piece[close.end() :]


def _is_disguised(span: str) -> bool:
    return len(_OTHER_LETTER.findall(span)) > len(_LATIN_LETTER.findall(_COMMAND.sub("", span)))


def _is_symbol(token: str) -> bool:
    return _IDENTIFIER.search(token) is not None or _FUNCTION.fullmatch(token) is not None
