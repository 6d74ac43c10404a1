"""What a block of Python defines, uses and does, by its tokens alone: nothing of it is parsed, compiled or run.

A text that is no Python has the outline of its tokens up to the first that cannot be read. Linear in the length of the text.
"""

import builtins
import io
import keyword
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

_READERS = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_WRITERS = {"print", "write", "writelines"}
_STARTERS = {"subprocess", "pexpect", "popen", "Popen"}
_BUILTINS = set(dir(builtins))
_SOON = 32
"""Words behind `sys.stdin =` that are looked at."""
_SKIPPED = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_AUGMENTED = re.compile(r"(?:[-+*/%@&|^]|//|\*\*|<<|>>)=")


@dataclass(slots=True)
class Outline:
    defined: set[str] = field(default_factory=set)
    """Names that its top level defines or assigns, and the methods of a class `Solution`."""
    imported: set[str] = field(default_factory=set)
    """Names that its top level takes from modules."""
    foreign: set[str] = field(default_factory=set)
    """Those of them that are not from the standard library."""
    free: set[str] = field(default_factory=set)
    """Names that it uses and does not bind anywhere; builtins included."""
    reads: bool = False
    """Whether it reads standard input, and none that it made itself."""
    writes: bool = False
    """Whether its own top level writes, or calls for their effect functions that may: it is a program, no library."""
    methods: bool = False
    """Whether its top level calls methods of objects of its own for their effect."""
    prints: bool = False
    """Whether anything in it writes."""
    starts: bool = False
    """Whether it starts other programs."""


def outline(text: str) -> Outline:
    """The outline of a block of Python."""
    found = _Reader()
    for statement, inside in _statements(text):
        found.take(statement, inside)
    return found.finish()


@dataclass(slots=True)
class _Reader:
    outline: Outline = field(default_factory=Outline)
    used: set[str] = field(default_factory=set)
    bound: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    """What the top level calls for its effect."""
    inputs: bool = False
    """Whether it calls `input`, be it the builtin or its own."""
    fed: bool = False
    """Whether it puts a text in the place of standard input."""
    everything: bool = False
    """Whether it imports by `*`: then what is free is not known."""

    def take(self, tokens: list[str], inside: list[tuple[str, str]]) -> None:
        """One statement, and the compound statements round it as (keyword, name)."""
        words = tokens[1:] if tokens[0] == "async" and len(tokens) > 1 else tokens
        top = not any(kind in ("def", "class") for kind, _ in inside)
        if words[0] in ("import", "from"):
            self._imports(words, top)
        else:
            self._names(words, top)
        if words[0] == "def" and inside == [("class", "Solution")]:
            self.outline.defined.update(words[1:2])
        self._standard_input(words)
        if top and words[0] not in ("def", "class", "import", "from", "@"):
            self._effects(words)

    def finish(self) -> Outline:
        made = self.outline
        made.free = set() if self.everything else self.used - self.bound
        made.reads = (made.reads or (self.inputs and "input" not in self.bound)) and not self.fed
        made.writes |= bool(self.called - made.imported - _BUILTINS) or (made.prints and made.methods)
        return made

    def _imports(self, words: list[str], top: bool) -> None:
        names = _imported(words)
        self.everything |= "*" in words
        self.bound |= names
        if top:
            self.outline.imported |= names
            self.outline.foreign |= set() if _at(words, 1) in sys.stdlib_module_names else names

    def _names(self, words: list[str], top: bool) -> None:
        defined = {*words[1:2]} if words[0] in ("def", "class") else _assigned(words)
        self.bound |= defined | _walked(words) | _parameters(words)
        if top:
            self.outline.defined |= defined
        depth = 0
        for place, word in enumerate(words):
            depth += (word in _OPEN) - (word in _CLOSE)
            keyword_argument = depth and _at(words, place + 1) == "=" and _at(words, place - 1) in ("(", ",")
            if _is_name(word) and _at(words, place - 1) != "." and not keyword_argument:
                self.used.add(word)

    def _standard_input(self, words: list[str]) -> None:
        for place, word in enumerate(words):
            before, behind = _at(words, place - 1), _at(words, place + 1)
            if word == "stdin" and behind == "=":
                # `stdin=` of a call is none; a text put in its place is one, unlike `io.StringIO(sys.stdin.read())`.
                value = words[place + 2 : place + 2 + _SOON] if before == "." else []
                self.fed |= any(name in value for name in ("StringIO", "BytesIO")) and value.count("(") == 1
            elif word == "input" and behind == "(" and before != ".":
                self.inputs = True
            elif word in _WRITERS and behind == "(":
                self.outline.prints = True
            elif word in _STARTERS or (word == "system" and before == "."):
                self.outline.starts = True
            else:
                self.outline.reads |= (
                    word in ("stdin", "fileinput")
                    or (word in ("open", "read", "fdopen") and behind == "(" and _at(words, place + 2) == "0")
                    or (word.endswith(("'", '"')) and any(name in word for name in _READERS))
                )

    def _effects(self, words: list[str]) -> None:
        kept = _assigns(words)
        for place, word in enumerate(words):
            if _at(words, place + 1) != "(" or not _is_name(word):
                continue
            before = _at(words, place - 1)
            if word in _WRITERS:
                self.outline.writes = True
            elif before != "." and not kept:
                self.called.add(word)
            elif place == 2 and not kept:
                self.outline.methods |= words[0] not in self.outline.imported


def _statements(text: str) -> Iterator[tuple[list[str], list[tuple[str, str]]]]:
    """Every simple statement or head of a compound one, as its tokens, with the compound statements round it."""
    inside: list[tuple[str, str]] = []
    head = ("", "")
    line: list[str] = []
    depth = 0
    for kind, word in _tokens(text):
        if kind == tokenize.INDENT:
            inside.append(head)
        elif kind == tokenize.DEDENT:
            inside.pop()
        elif kind == tokenize.NEWLINE or (word == ";" and not depth):
            if line:
                yield line, list(inside)
            line, depth = [], 0
        else:
            if not line or line == ["async"]:
                head = (word, "")
            elif line[-1] == head[0]:
                head = (head[0], head[1] or word)
            depth += (word in _OPEN) - (word in _CLOSE)
            line.append(word)
    if line:
        yield line, list(inside)


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _SKIPPED:
                yield token.type, token.string
    except (tokenize.TokenError, SyntaxError, ValueError):  # of which IndentationError and UnicodeError are some
        return


def _at(words: list[str], place: int) -> str:
    return words[place] if 0 <= place < len(words) else ""


def _is_name(word: str) -> bool:
    return word.isidentifier() and not keyword.iskeyword(word)


def _parameters(words: list[str]) -> set[str]:
    """Names of the parameters of a `def`; none of anything else."""
    found: set[str] = set()
    depth = 0
    for place, word in enumerate(words if words[0] == "def" else []):
        depth += (word in _OPEN) - (word in _CLOSE)
        if depth == 1 and _is_name(word) and _at(words, place - 1) in ("(", ",", "*", "**"):
            found.add(word)
    return found


def _imported(words: list[str]) -> set[str]:
    """Names that an `import` binds: `c` and `d` of `import a as c, d.e`."""
    found: set[str] = set()
    name = ""
    for before, word in pairwise(words[words.index("import") :] if "import" in words else []):
        if word == ",":
            found.add(name)
            name = ""
        elif _is_name(word) and (not name or before == "as"):
            name = word
    return (found | {name}) - {""}


def _assigns(words: list[str]) -> bool:
    """Whether it is an assignment: an equals sign outside of all brackets."""
    depth = 0
    for word in words:
        depth += (word in _OPEN) - (word in _CLOSE)
        if not depth and (word == "=" or _AUGMENTED.fullmatch(word)):
            return words[0] not in ("if", "for", "while", "with", "lambda")
    return False


def _assigned(words: list[str]) -> set[str]:
    """Names on the left of an assignment, but for those whose items or attributes are assigned."""
    depth, last = 0, -1
    for place, word in enumerate(words):
        depth += (word in _OPEN) - (word in _CLOSE)
        if not depth and word == "=":
            last = place
        elif not depth and word == "lambda":
            break
    return {
        word
        for place, word in enumerate(words[: max(0, last)])
        if _is_name(word) and _at(words, place - 1) != "." and _at(words, place + 1) not in (".", "[", "(")
    }


def _walked(words: list[str]) -> set[str]:
    """Names that `for`, `as`, `:=` and `lambda` bind."""
    found: set[str] = set()
    binding = ""  # the word behind which names are bound
    for place, word in enumerate(words):
        if word in ("for", "lambda", "as"):
            binding = word
        elif (word, binding) in (("in", "for"), (":", "lambda"), (":", "as")) or (binding == "as" and word == ","):
            binding = ""
        elif _is_name(word) and (binding or _at(words, place + 1) == ":=") and _at(words, place - 1) != ".":
            found.add(word)
    return found
