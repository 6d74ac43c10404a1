"""The settings of a file of another trainer: by name, each with its line, each to be taken or told.

A converter asks for what it knows; what nobody has asked for at the end has no counterpart and is told.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rollout.errors import InputError

UNKNOWN = "\0"
"""Mark, before and behind, of a variable or a command in a text whose value a shell would have to find."""
_UNKNOWN = re.compile("\0([^\0]*)\0")
OFF: tuple[Any, ...] = (None, False, "", "null", "None", "none", "False", "false", [], {}, ())
"""Values that ask for nothing."""

_SECRET_NAME = re.compile(
    r"(?i)(^|[._-])(use_wandb|token|secret|secrets|password|passwd"
    r"|credentials?|api_?key|apikey|wandb_?key|access_key(_id)?|private_key|(openai|anthropic|hf|swanlab|comet|mlflow|clearml)_?key|auth|authorization)$|wandb\.key$|runtime_env_json$|^env\."
)
_SIGN_NAME = re.compile(r"(?i)(eos|pad|bos|unk|stop|mask|image|video|cls|sep)_token$")
"""Names of tokens that are signs of a text."""
_SECRET_VALUE = re.compile(
    r"(?i:\bbearer\s+\S+)|\b(hf_[A-Za-z0-9]{8,}|sk-[\w-]{8,}|gh[pousr]_\w{8,}|github_pat_\w+|glpat-[\w-]+|AKIA[0-9A-Z]{12,}|xox[abp]-[\w-]+"
    r"|wandb_v\d_\w+|eyJ[\w-]{8,}\.[\w-]+\.[\w-]+|[0-9a-f]{40})\b"
)
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(?i)(?<=[?&])(\w*(?:key|token|secret|password)\w*=)[^&\s\"']+")
HIDDEN = "(not written out)"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as a file has it."""

    name: str
    """Name as it is written there."""
    value: Any
    """Text of a command line; of YAML: text, numbers, booleans, lists, tables, None."""
    line: int
    """Line of the file, from 1."""

    def shown(self) -> str:
        """`name = value` for a comment or a message, on one line; a secret is not in it."""
        return f"{self.name} = {shown(self.name, self.value)}"


class Settings:
    """The settings of a file, over the defaults of the trainer that it is for."""

    def __init__(self, file: str, found: Mapping[str, Setting], defaults: Mapping[str, Any]) -> None:
        """
        Args:
            file: its name, for messages.
            found: canonical name → setting.
            defaults: canonical name → what the trainer takes where the file says nothing.
        """
        self.file = file
        self._found = dict(found)
        self._defaults = defaults
        self._taken: set[str] = set()
        self.unset: dict[str, str] = {}
        """Texts with a variable that is not set: the setting with its line → the way out."""

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def get(self, name: str) -> Setting | None:
        """A setting that the file has; it is taken now."""
        self._taken.add(name)
        return self._found.get(name)

    def take(self, *names: str) -> None:
        """Settings that are told by what others do."""
        self._taken.update(names)

    def peek(self, name: str) -> Setting | None:
        """A setting that the file has, which is still to be told of."""
        return self._found.get(name)

    def origin(self, name: str, trainer: str) -> str:
        """Where a value comes from: the name in the file, or the trainer's default."""
        found = self._found.get(name)
        return found.name if found else f"{trainer}'s default of {name}"

    def names(self) -> list[str]:
        """Canonical names of all settings of the file."""
        return list(self._found)

    def all(self) -> Iterator[Setting]:
        """All settings of the file, in its order."""
        return iter(self._found.values())

    def rest(self) -> Iterator[Setting]:
        """Settings that nobody has asked for, in the order of the file."""
        return (setting for name, setting in self._found.items() if name not in self._taken)

    def value(self, name: str) -> Any:
        """What the file, or else the trainer, says. Raises InputError where a shell would have to find it."""
        found = self.get(name)
        if found is None:
            return self._defaults.get(name)
        if unknown := _unknown(found.value):
            raise self.fault(name, _way_out(unknown))
        return found.value

    def text(self, name: str) -> str:
        """A value as text; empty where there is none. A variable that is not set stays in it, and is in `unset`."""
        value = self._readable(name)
        if isinstance(value, list | dict):
            raise self.fault(name, "give one value")
        return "" if value is None or value in ("null", "None") else str(value)

    def _readable(self, name: str) -> Any:
        found = self.get(name)
        value = found.value if found else self._defaults.get(name)
        if found is None or not (unknown := _unknown(value)):
            return value
        self.unset[f"line {found.line}, {found.shown()}"] = _way_out(unknown)
        return [_plain(each) for each in value] if isinstance(value, list) else _plain(value)

    def flag(self, name: str) -> bool:
        value = self.value(name)
        words = {
            "true": True,
            "yes": True,
            "1": True,
            "on": True,
            "false": False,
            "no": False,
            "0": False,
            "off": False,
        }
        if value is None or value in ("null", "None", ""):
            return False
        known = words.get(str(value).lower())
        if known is None:
            raise self.fault(name, "neither true nor false; write one of them")
        return known

    def number(self, name: str) -> float | None:
        """A finite number; None where there is none."""
        value = self.value(name)
        if value is None or value in ("null", "None", ""):
            return None
        try:
            single = value[0] if isinstance(value, list) and len(value) == 1 else value
            number = float("nan") if isinstance(single, bool | list | dict) else float(single)
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) < float("inf"):
            raise self.fault(name, "not a number; write one such as 1e-6")
        return number

    def real(self, name: str, other: float) -> float:
        """A finite number; `other` where there is none."""
        number = self.number(name)
        return other if number is None else number

    def whole(self, name: str, *, least: int | None = None) -> int | None:
        """A whole number of at least `least`; None where there is none."""
        number = self.number(name)
        if number is None:
            return None
        if number != int(number):
            raise self.fault(name, "not a whole number")
        if least is not None and number < least:
            raise self.fault(name, f"give at least {least}")
        return int(number)

    def listed(self, name: str) -> list[Any]:
        """A list; one value is a list of one, none an empty one."""
        value = self._readable(name)
        if value is None or value in ("null", "None", ""):
            return []
        return value if isinstance(value, list) else [value]

    def fault(self, name: str, what: str) -> InputError:
        """A mistake in a setting, in one line."""
        found = self._found.get(name)
        if found is None:
            return InputError(f"{self.file}: {name}, by default {self._defaults.get(name)!r}: {what}")
        return InputError(f"{self.file}, line {found.line}: {short(found.shown())}: {what}")


def shown(name: str, value: Any) -> str:
    """A value on one line, without what must not be written out."""
    if is_secret_name(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(str(key), each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(name, each) for each in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    text = _plain(value)
    if "revision" not in name:
        text = _SECRET_VALUE.sub(HIDDEN, text)
    text = without_user(text)
    return (
        text
        if re.fullmatch(r"[\w./:@%+,$~=()-]+( [\w./:@%+,$~=()-]+)*", text)
        else json.dumps(text, ensure_ascii=False)
    )


def is_secret_name(name: str) -> bool:
    """Whether what has this name must not be written out."""
    return bool(_SECRET_NAME.search(name)) and not _SIGN_NAME.search(name)


def short(text: str, longest: int = 120) -> str:
    """A text for a message of one line."""
    return text if len(text) <= longest else text[: longest - 2] + " …"


def is_secret(name: str, value: Any) -> bool:
    """Whether a value, or a part of it, must not be written out."""
    return HIDDEN in shown(name, value)


def without_user(text: str) -> str:
    """A URL without user, password and keys."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub("", text))


def _unknown(value: Any) -> str:
    """What a shell would have to find in a value; empty: nothing."""
    texts = value if isinstance(value, list) else [value]
    found = [match[1] for text in texts if isinstance(text, str) for match in _UNKNOWN.finditer(text)]
    return found[0] if found else ""


def _plain(text: Any) -> Any:
    return _UNKNOWN.sub(lambda found: "$" + found[1], text) if isinstance(text, str) else text


def _way_out(unknown: str) -> str:
    if re.fullmatch(r"\w+", unknown):
        return f"{unknown} is set neither in the file nor in the environment; set it: {unknown}=… rayzero convert …"
    return f"what ${unknown} gives is known to a shell alone; write the value itself"
