"""A recipe that is being written: its keys with where each comes from, what differs, and what has no counterpart."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from orchestrator.convert.batches import Batches
from orchestrator.convert.settings import HIDDEN, OFF, Setting, Settings, without_user
from rollout.errors import did_you_mean

_HEAD = ("name", "description", "seed")
_SECTIONS = ("cluster", "model", "data", "rollout", "rewards", "learner", "loop", "eval")
STAGE = "reasoning"
"""Name of the one stage of a converted recipe."""


@dataclass(frozen=True, slots=True)
class Entry:
    value: Any
    origin: str
    """Name of the setting in the file, or whose default it is; empty: neither."""
    note: str
    """What differs; empty: nothing."""


class Draft:
    """Raises nothing: what is wrong with a recipe is said by its check."""

    def __init__(self, trainer: str, settings: Settings) -> None:
        """
        Args:
            trainer: its name, for comments.
            settings: of the file.
        """
        self.trainer = trainer
        self._settings = settings
        self._entries: dict[str, Entry] = {}
        self._lost: list[str] = []
        self._told: set[str] = set()
        """Settings of the file that a line is about, by the names that they have there."""
        self.parts = 1
        """Optimizer steps of a batch."""
        self.remains: list[str] = []
        """What the user has to give or to look at, a line each."""

    def put(self, key: str, value: Any, source: str = "", note: str = "") -> None:
        """A key of the recipe.

        Args:
            key: dotted, with quotes where a name needs them.
            value: as TOML has it.
            source: canonical name of the setting that it comes from.
            note: what differs in its meaning.
        """
        origin = self._settings.origin(source, self.trainer) if source else ""
        self._told.add(origin)
        if isinstance(value, str) and (plain := without_user(value)) != value:
            value, note = plain, "user, password or key of the URL are not written out"
        self._entries[key] = Entry(value, origin, note)

    def value(self, key: str) -> Any:
        """The value of a key so far; None: it has none."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def has(self, prefix: str) -> bool:
        """Whether there is a key that begins so."""
        return any(key.startswith(prefix) for key in self._entries)

    def differs(self, name: str, what: str) -> None:
        """A setting that is not as it was there: one line. Of a default where the file has no such setting."""
        found = self._settings.get(name)
        self._told.add(found.name if found else "")
        self._lost.append(f"{found.shown() if found else f'{name} (default)'}: {what}")

    def lost(self, setting: Setting, why: str) -> None:
        """A setting without a counterpart."""
        self._told.add(setting.name)
        self._lost.append(f"{setting.shown()}: {why}")

    def lose_rest(self, reasons: Mapping[str, str], known: Iterable[str]) -> None:
        """Tell of every setting that nobody has asked for.

        Args:
            reasons: regular expression of names → what happens here instead; the first that fits.
            known: names that a wrong one may have been meant for.
        """
        off, known = [], list(known)
        for setting in self._settings.rest():
            why = next((why for pattern, why in reasons.items() if re.search(pattern, setting.name)), "")
            if setting.value in OFF and not why:
                off.append(setting.shown())
                self._told.add(setting.name)
            else:
                self.lost(setting, why or f"not known here, left out{did_you_mean(setting.name, known)}")
        self.remains += [f"{setting}: {way_out}" for setting, way_out in self._settings.unset.items()]
        self._lost += [f"{setting}: off there, and not here at all" for setting in off]

    def put_batches(self, batches: Batches, *, sizes: Mapping[str, str], length: str) -> None:
        """The batches of the stage.

        Args:
            batches: worked out.
            sizes: key of the recipe → setting that it comes from.
            length: how the number of steps was found, or what is needed to find it.
        """
        self.parts = batches.mini_batches
        note = "; ".join(batches.notes)
        self.put("rollout.group_size", batches.group_size, sizes["rollout.group_size"])
        self.put("loop.groups_per_step", batches.groups, sizes["loop.groups_per_step"], note)
        self.put("learner.mini_batches", batches.mini_batches, sizes["learner.mini_batches"])
        if batches.steps:
            self.put("loop.steps", batches.steps, note=length)
        else:
            self.put("loop.steps", 100, note=f"not known: {length}")
            self.remains.append(f"loop.steps: {length}")

    def toml(self, head: str) -> str:
        """The recipe. `head`: a first comment."""
        lines = [f"# {_line(head)}", ""]
        for key in _HEAD:
            lines += self._key(key, key)
        for section in _SECTIONS:
            keys = [key for key in self._entries if key.startswith(f"{section}.")]
            if keys:
                lines += ["", f"[{section}]"]
            for key in keys:
                lines += self._key(key, key.removeprefix(f"{section}."))
        lines += ["", "[[stages]]", f'name = "{STAGE}"', 'kind = "grpo"']
        if self._lost:
            lines += ["", f"# Of {self.trainer}, without a counterpart here or with another meaning:"]
            lines += [f"#   {_line(each)}" for each in self._lost]
        silent = [each.shown() for each in self._settings.all() if each.name not in self._told]
        if silent:
            lines += [
                "",
                "# Read for what is above, beside the settings that are named there:",
                *(f"#   {_line(each)}" for each in silent),
            ]
        if self.remains:
            lines += ["", "# Left to you:", *(f"#   {_line(each)}" for each in self.remains)]
        return "\n".join(lines) + "\n"

    def _key(self, key: str, name: str) -> list[str]:
        entry = self._entries.get(key)
        if entry is None:
            return []
        lines = [f"# {_line(entry.note)}"] if entry.note else []
        origin = f"  # {_line(entry.origin)}" if entry.origin else ""
        return [*lines, f"{name} = {_toml(entry.value)}{origin}"]


def quoted(name: str) -> str:
    """A name as a part of a dotted key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def name_from(settings: Settings, names: Iterable[str], file: str) -> str:
    """The name of the recipe: from the first of some settings that the file has, or else from its own name."""
    found = [setting for name in names if (setting := settings.peek(name))]
    texts = [each.shown().partition(" = ")[2].strip('"').rstrip("/") for each in found]
    named = [slug(text) for text in texts if "$" not in text and HIDDEN not in text]
    return next((name for name in (*named, slug(Path(file).stem)) if name), "grpo")


def slug(text: str) -> str:
    """A text as the name of a recipe; empty where nothing of it can stand in one."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().rsplit("/", 1)[-1]).strip("-")[:60].strip("-")


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{quoted(str(key))} = {_toml(each)}" for key, each in value.items() if each is not None)
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value if each is not None) + "]"
    if isinstance(value, str):
        # Half of a surrogate pair is in no TOML.
        whole = "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in value)
        return "".join(sign if sign.isprintable() else _escaped(sign) for sign in json.dumps(whole, ensure_ascii=False))
    return tomli_w.dumps({"_": value}).removeprefix("_ = ").rstrip("\n")


def _escaped(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"


def _line(text: str) -> str:
    """A text on one line of a comment, whatever was in it."""
    shown = "".join(sign if sign.isprintable() else json.dumps(sign).strip('"') for sign in " ".join(text.split()))
    return shown if len(shown) <= 600 else shown[:600] + " …"
