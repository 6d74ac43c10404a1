"""Reading a shell script for the commands that it would run. Nothing is run: what only a shell can know stays a mark.

Known are quotes, comments, continued lines, variables that the script or the environment sets, their defaults (`${X:-8}`),
sums (`$((A * 2))`), arrays and here-documents. Control flow is not followed: every command of every branch is read.
"""

import ast
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.convert.settings import HIDDEN, UNKNOWN, is_secret_name
from rollout.errors import InputError

_NAME = re.compile(r"[A-Za-z_]\w*")
_ASSIGN = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_ENDS = "\n;&|(){}"
_DECLARING = ("export", "local", "readonly", "declare", "typeset", "-x", "-r", "-a", "-g", "-i")
_DEEPEST = 8
"""Texts of commands inside of commands (`bash -c "…"`), and variables inside of defaults."""


@dataclass(slots=True)
class Word:
    text: str
    line: int
    """Line of the file, from 1."""


@dataclass(slots=True)
class Command:
    words: list[Word] = field(default_factory=list)
    after_comment: bool = False
    """Whether it stands behind a comment that ended a continued line."""


class Script:
    """A script, read once from its start to its end."""

    def __init__(
        self,
        file: str,
        text: str,
        variables: Mapping[str, str | list[str]],
        *,
        line: int = 1,
        words_only: bool = False,
        depth: int = 0,
    ) -> None:
        """
        Args:
            file: its name, for messages.
            text: of the script.
            variables: those that are set before it begins.
            line: number of its first line.
            words_only: whether it is the inside of an array or of a default, where `a=1` assigns nothing.

        Raises:
            InputError: a quote or a bracket is not closed.
        """
        self.file, self.line, self._depth, self._words_only = file, line, depth, words_only
        self._text, self._at = text.replace("\r\n", "\n"), 0
        self._set: dict[str, str | list[str]] = dict(variables)
        self.own: set[str] = set()
        """Names that the script itself sets."""
        self.commands: list[Command] = []
        self._command = Command()
        self._word: list[str] | None = None
        self._word_line = line
        self._read()

    def words(self) -> list[str]:
        """All words, whatever command they are of."""
        return [word.text for command in self.commands for word in command.words]

    def _read(self) -> None:
        while self._at < len(self._text):
            sign = self._text[self._at]
            if self._text.startswith("\\\n", self._at):
                self._skip(2)
            elif sign in " \t":
                self._end_word()
                self._skip(1)
            elif sign == "#" and self._word is None:
                self._comment()
            elif sign == "<" and self._heredoc():
                continue
            elif sign in "<>" or (sign == "&" and self._text.startswith("&>", self._at)):
                self._redirect()
            elif sign in _ENDS and not (sign in "{}" and (self._word is not None or not self._alone())):
                self._end_command()
                self._skip(1)
            else:
                self._piece()
        self._end_command()

    def _alone(self) -> bool:
        """Whether a brace is a word of its own, and so groups commands."""
        following = self._text[self._at + 1 : self._at + 2]
        return not following or following in " \t\n;"

    def _piece(self) -> None:
        """The next part of a word."""
        sign = self._text[self._at]
        if self._word is None:
            self._word, self._word_line = [], self.line
        if sign == "'":
            self._add(self._until("'"))
        elif sign == '"':
            self._double()
        elif self._text.startswith("$'", self._at):
            self._at += 1
            self._add(self._ansi())
        elif sign == "\\":
            self._add(self._text[self._at + 1 : self._at + 2])
            self._skip(2)
        elif sign in "$`":
            self._spread(self._expansion())
        else:
            self._add(sign)
            self._skip(1)
            if sign == "=" and self._text.startswith("(", self._at) and _ASSIGN.fullmatch("".join(self._word)):
                self._array()

    def _add(self, text: str) -> None:
        assert self._word is not None
        self._word.append(text)

    def _spread(self, value: str | list[str]) -> None:
        """An expansion without quotes: blanks in it divide words, unless it is assigned."""
        assert self._word is not None
        assigned = not self._words_only and not self._command.words and _ASSIGN.match("".join(self._word))
        if isinstance(value, str) and assigned:
            self._add(value)
            return
        parts = value.split() if isinstance(value, str) else value
        if isinstance(value, str) and value[:1].isspace() and "".join(self._word):
            self._end_word()
        for place, part in enumerate(parts):
            if place:
                self._end_word()
            if self._word is None:
                self._word, self._word_line = [], self.line
            self._add(part)
        if not parts and self._word == []:
            self._word = None

    def _double(self) -> None:
        """A part in double quotes."""
        start, nothing = self.line, self._word == []
        self._skip(1)
        empty_list = False
        while self._at < len(self._text):
            sign = self._text[self._at]
            if sign == '"':
                self._skip(1)
                if empty_list and nothing and not any(self._word or ()):
                    self._word = None
                return
            if sign == "\\" and self._text[self._at + 1 : self._at + 2] in ('"', "\\", "$", "`", "\n"):
                following = self._text[self._at + 1]
                self._add("" if following == "\n" else following)
                self._skip(2)
            elif sign in "$`":
                value = self._expansion()
                if isinstance(value, list):
                    self._quoted_list(value)
                    empty_list = not value
                else:
                    self._add(value)
            else:
                self._add(sign)
                self._skip(1)
        raise InputError(f'{self.file}, line {start}: a " is not closed; close it')

    def _quoted_list(self, values: list[str]) -> None:
        """`"${ARRAY[@]}"`: a word an element."""
        for place, value in enumerate(values):
            if place:
                self._end_word()
                self._word, self._word_line = [], self.line
            self._add(value)

    def _until(self, end: str) -> str:
        """The text up to the next `end`, behind the sign here."""
        stop = self._text.find(end, self._at + 1)
        if stop < 0:
            raise InputError(f"{self.file}, line {self.line}: a {end} is not closed; close it")
        text = self._text[self._at + 1 : stop]
        self._skip(stop + 1 - self._at)
        return text

    _ESCAPES: ClassVar = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}

    def _ansi(self) -> str:
        found = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL).match(self._text, self._at)
        if not found:
            raise InputError(f"{self.file}, line {self.line}: a ' is not closed; close it")
        self._skip(found.end() - self._at)
        return re.sub(r"\\(.)", lambda each: self._ESCAPES.get(each[1], each[0]), found[1], flags=re.DOTALL)

    def _expansion(self) -> str | list[str]:
        """The value of what begins with `$` or a backtick here."""
        text, at = self._text, self._at
        if text[at] == "`":
            self._until("`")
            return _mark("(…)")
        if text.startswith("$((", at):
            inside = self._closed("$((", "))")
            return self._sum(inside)
        if text.startswith("$(", at):
            self._closed("$(", ")")
            return _mark("(…)")
        if text.startswith("${", at):
            return self._braced(self._closed("${", "}"))
        if found := _NAME.match(text, at + 1):
            self._skip(found.end() - at)
            return self._value(found[0])
        if text[at + 1 : at + 2] in ("@", "*"):
            self._skip(2)
            return []
        if text[at + 1 : at + 2].isdigit():
            self._skip(2)
            return _mark(text[at + 1])
        self._skip(1)
        return "$"

    def _closed(self, start: str, end: str) -> str:
        """The text between brackets that may stand in each other."""
        opening, closing = start[-1], end[-1]
        depth, at, line = len(end), self._at + len(start), self.line
        quoted = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)
        while at < len(self._text) and depth:
            if start == "$(" and (skipped := quoted.match(self._text, at)):
                at = skipped.end()
                continue
            depth += (self._text[at] == opening) - (self._text[at] == closing)
            at += 1
        if depth:
            raise InputError(f"{self.file}, line {line}: {start} is not closed; close it")
        text = self._text[self._at + len(start) : at - len(end)]
        self._skip(at - self._at)
        return text

    def _value(self, name: str) -> str | list[str]:
        value = self._set.get(name)
        if value is None:
            return _mark(name)
        if is_secret_name(name) and value:
            return HIDDEN.replace(" ", "-")
        return value if isinstance(value, str) else (value[0] if value else "")

    def _braced(self, inside: str) -> str | list[str]:
        """`${…}`."""
        if found := re.fullmatch(r"(\w+)\[[@*]\](?:[-:].*)?", inside, re.DOTALL):
            value = self._set.get(found[1], [])
            return value if isinstance(value, list) else [value]
        if inside[:1] in ("@", "*"):
            return []
        found = re.fullmatch(r"(\w+)(?:(:?[-=?+])(.*))?", inside, re.DOTALL)
        if not found:
            return _mark(f"{{{inside}}}")
        name, sign, other = found[1], found[2] or "", found[3] or ""
        known = self._set.get(name)
        if sign.endswith("+"):
            return self._nested(other) if known is not None else ""
        if sign.endswith(("-", "=")) and (known is None or (sign[0] == ":" and not known)):
            chosen = HIDDEN.replace(" ", "-") if is_secret_name(name) and other else self._nested(other)
            if sign.endswith("="):
                self._set[name] = chosen
            return chosen
        return self._value(name) if not name.isdigit() else _mark(name)

    def _nested(self, text: str, *, quoted: bool = False) -> str:
        """A text with its variables filled in.

        Args:
            quoted: whether quotes in it are signs as any others.
        """
        if self._depth >= _DEEPEST:
            return _mark("(…)")
        if quoted or not set(text) & {"'", '"'}:
            text = '"' + text.replace('"', '\\"') + '"'
        inner = Script(self.file, text, self._set, line=self.line, words_only=True, depth=self._depth + 1)
        return " ".join(inner.words())

    def _sum(self, inside: str) -> str:
        expression = self._nested(inside, quoted=True)
        expression = _NAME.sub(lambda found: str(self._value(found[0])), expression)
        value = whole_sum(expression) if UNKNOWN not in expression else None
        return _mark(f"(({inside}))") if value is None else str(value)

    def _array(self) -> None:
        """`NAME=(…)`, up to its bracket."""
        assert self._word is not None
        found = _ASSIGN.fullmatch("".join(self._word))
        assert found is not None
        line = self.line
        inner = Script(self.file, self._array_text(), self._set, line=line, words_only=True, depth=self._depth + 1)
        words = inner.words()
        before = self._set.get(found[1], []) if found[2] else []
        self._set[found[1]] = [*(before if isinstance(before, list) else [before]), *words]
        self.own.add(found[1])
        self._word = None

    def _array_text(self) -> str:
        """The inside of an array: brackets in quotes and comments do not close it."""
        part = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.|(?<=\s)\#[^\n]*|[^)]""", re.DOTALL)
        at = self._at + 1
        while at < len(self._text) and self._text[at] != ")":
            found = part.match(self._text, at)
            at = found.end() if found else at + 1
        text = self._text[self._at + 1 : at]
        self._skip(at + 1 - self._at)
        return text

    def _comment(self) -> None:
        end = self._text.find("\n", self._at)
        before = self._text[: self._at].rstrip(" \t")
        continued = before.endswith("\\\n")
        self._skip((len(self._text) if end < 0 else end) - self._at)
        if continued and self._command.words:
            self._end_command()
            self._command.after_comment = True
            self._skip(1)

    def _redirect(self) -> None:
        """`> FILE`, `2>&1`: no words of the command."""
        if self._word and "".join(self._word).isdigit():
            self._word = None
        self._end_word()
        found = re.compile(r"&?[<>]+[&|]?[ \t]*").match(self._text, self._at)
        self._skip(found.end() - self._at if found else 1)
        kept = len(self._command.words)
        while self._at < len(self._text) and self._text[self._at] not in " \t\n;|&<>":
            self._piece()
        self._end_word()
        del self._command.words[kept:]

    def _heredoc(self) -> bool:
        """`read -d '' NAME <<END …`: the text is the variable's. Others are left out."""
        found = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1([^\n]*)\n(.*?)\n[ \t]*\2(?=\n|$)", re.DOTALL).match(
            self._text, self._at
        )
        if not found:
            return False
        self._end_word()
        words = [word.text for word in self._command.words]
        if words[:1] == ["read"] and _NAME.fullmatch(words[-1]):
            text = found[4].replace("\\\n", " ").replace("\n", " ")
            self._set[words[-1]] = text if found[1] else self._nested(text, quoted=True)
            self.own.add(words[-1])
        self._skip(found.end() - self._at)
        return True

    def _end_word(self) -> None:
        if self._word is not None:
            self._command.words.append(Word("".join(self._word), self._word_line))
            self._word = None

    def _end_command(self) -> None:
        self._end_word()
        words = self._command.words
        while words and not self._words_only and (words[0].text in _DECLARING or _ASSIGN.match(words[0].text)):
            word = words.pop(0)
            if found := _ASSIGN.match(word.text):
                value, before = word.text[found.end() :], self._set.get(found[1], "")
                self._set[found[1]] = (before if isinstance(before, str) else "") + value if found[2] else value
                self.own.add(found[1])
        if words:
            self.commands.append(self._command)
        self._command = Command()

    def _skip(self, count: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + count)
        self._at += count


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _mark(unknown: str) -> str:
    """A mark in a text for what a shell alone knows. Without blanks, which would divide words."""
    return f"{UNKNOWN}{''.join(unknown.split())}{UNKNOWN}"


def whole_sum(text: str) -> int | None:
    """The value of a sum of whole numbers, as a shell counts it; None: it is none."""
    try:
        return _counted(ast.parse(text.strip(), mode="eval").body) if len(text) < 1000 else None
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _counted(node: ast.AST) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 2**63:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_counted(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        value: int = _OPERATORS[type(node.op)](_counted(node.left), _counted(node.right))
        if abs(value) < 2**63:
            return value
    raise ValueError(text_of(node))


def text_of(node: ast.AST) -> str:
    return ast.unparse(node)
