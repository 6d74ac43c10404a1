"""Settings of the command line, `key=value`, laid over a recipe before it is resolved.

A key is dotted as in TOML: names of letters, digits, _ and - stand as they are, any other name in quotes:
`data.sources."my set.v2".limit=9`. A value is TOML; what is not TOML is text.
"""

import copy
import re
import tomllib
from collections.abc import Iterable, Mapping, Set
from typing import Any

from orchestrator.config.keys import PLAIN_NAME
from orchestrator.config.recipe import OWN
from rollout.errors import InputError, did_you_mean

_NOT_ASCII = re.compile(r"""\"(?:[^\"\\]|\\.)*\"|'[^']*'|[\w-]+""")
"""A quoted name, or a plain one, which TOML takes in ASCII only."""


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[str], sections: Iterable[str]) -> dict[str, Any]:
    """The recipe as a TOML file gives it, with overrides laid over a copy of it, the later one over the earlier.

    An override of `section.key` holds in every stage, even over the stage's own; `stages.NAME.section.key` in one, and over
    the former wherever it stands. Two kinds of keys hold in fewer stages: `data.sources.NAME` and `eval.sets.NAME` in those
    that have it, if some have; `model.path` and `model.build` not in a stage that begins with a model of its own.

    Args:
        sections: that a stage may repeat.

    Raises:
        InputError: an override is not of the form `key=value`, or its key leads through something that is no section.
    """
    result = copy.deepcopy(dict(raw))
    with_own_model = {stage.get("name") for stage in _stages(raw) if _has_own_model(stage)}
    for override in sorted(overrides, key=lambda text: text.lstrip().startswith("stages.")):
        _apply(result, override, frozenset(sections), with_own_model)
    return result


def split(override: str) -> tuple[list[str], str]:
    """`a."b.c"=1` → (["a", "b.c"], "1"). Raises InputError."""
    reason = ""
    for end in (i for i, sign in enumerate(override) if sign == "="):
        try:
            return _names(override[:end]), override[end + 1 :]
        except ValueError as error:
            reason = reason or str(error)  # this = may be inside the quotes of a name: go on to the next
    key = override.partition("=")[0].strip()
    form = f"override {override!r}: write it as key=value, such as learner.lr=1e-5"
    if '"' in key or "'" in key:
        raise InputError(f"{form}; {key} is no quoted name: {reason}")
    name = next((part.strip() for part in key.split(".") if part.strip() and not PLAIN_NAME.fullmatch(part)), "")
    if not name or "=" not in override:
        raise InputError(form)
    raise InputError(
        f"override {override!r}: {name!r} needs quotes, for it is more than letters, digits, _ and -\n"
        "quote the whole name, dots included, and keep the quotes from the shell: 'data.sources.\"a/b.c\".limit=9'"
    )


def _names(key: str) -> list[str]:
    """The names of a dotted key. Raises ValueError."""
    plain = key.split(".")
    if all(map(PLAIN_NAME.fullmatch, plain)):
        return plain  # letters of any alphabet; TOML has only those of ASCII without quotes
    names = []
    table: Any = tomllib.loads(f"{_NOT_ASCII.sub(_quote, key)} = 0")
    while isinstance(table, dict):
        ((name, table),) = table.items()
        names.append(name)
    return names


def _quote(match: re.Match[str]) -> str:
    """A name in letters of another alphabet in quotes; what stands in quotes already as it is."""
    return match[0] if match[0][0] in "\"'" or match[0].isascii() else f'"{match[0]}"'


def value_of(text: str) -> Any:
    """A value as TOML has it; what is not TOML is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _apply(raw: dict[str, Any], override: str, sections: frozenset[str], with_own_model: Set[Any]) -> None:
    names, text = split(override)
    value = value_of(text)
    targets = [raw]
    stages = _stages(raw)
    if names[0] == "stages" and len(names) > 2:
        targets = [stage for stage in stages if stage.get("name") == names[1]]
        if not targets:
            known = [str(stage.get("name")) for stage in stages]
            raise InputError(
                f"override {override!r}: no stage {names[1]!r}{did_you_mean(names[1], known)}; "
                f"stages: {', '.join(known)}"
            )
        names = names[2:]
    elif names[0] in sections:
        # What a user says on the command line is stronger than what a stage of the file says.
        targets = _targets(raw, names, with_own_model)
    for target in targets:
        for name in names[:-1]:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise InputError(f"override {override!r}: {name!r} is not a section")
        target[names[-1]] = copy.deepcopy(value)


def _targets(raw: dict[str, Any], names: list[str], with_own_model: Set[Any]) -> list[dict[str, Any]]:
    """The tables that an override of a section goes to: the defaults and all stages, or those that it is about."""
    stages = _stages(raw)
    if names[0] == "model" and names[1:2] in (["path"], ["build"]):
        # The others have it from the defaults, or from the stage whose model they start from.
        saying = [stage for stage in stages if _at(stage, names[:2]) is not None]
        return [raw, *(stage for stage in saying if stage.get("name") not in with_own_model)]
    if names[:2] in (["data", "sources"], ["eval", "sets"]) and len(names) > 3 and _at(raw, names[:3]) is None:
        having = [stage for stage in stages if _at(stage, names[:3]) is not None]
        return having or [raw, *stages]
    return [raw, *stages]


def _stages(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = raw.get("stages")
    return [stage for stage in listed if isinstance(stage, dict)] if isinstance(listed, list) else []


def _has_own_model(stage: Mapping[str, Any]) -> bool:
    return stage.get("model_from") == OWN and any(_at(stage, ["model", key]) is not None for key in ("path", "build"))


def _at(table: Any, names: Iterable[str]) -> Any:
    """What lies under a key of names; None where nothing does."""
    for name in names:
        table = table.get(name) if isinstance(table, dict) else None
    return table
