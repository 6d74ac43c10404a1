"""Packages of this environment that programs may import: which files they are, with those of what they require.

Nothing is imported here: the interpreter of the sandbox does that once, shut in (`rewards/sandbox/inside/packages.py`).
"""

import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from typing import Any

from rollout.errors import InputError, did_you_mean

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"\bextra\s*==")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """What workers of the sandbox need to know of the packages; all paths are real ones."""

    warm: tuple[str, ...] = ()
    """Modules to import before the first program, in order."""
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Top-level module → `file` (empty for a namespace) and `folders` that its own modules are in (None: it is no package)."""
    trees: tuple[str, ...] = ()
    """Files and folders to read."""


@cache
def find_packages(names: tuple[str, ...]) -> Packages:
    """The packages of these names, each of a module (`numpy`, `scipy.optimize`) or of a distribution (`scikit-learn`).

    Raises:
        InputError: one is not installed here.
    """
    warm: list[str] = []
    found: dict[str, Distribution] = {}
    modules: dict[str, dict[str, Any]] = {}
    for name in names:
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            continue
        module = _module(top)
        if module is not None:
            warm.append(name)
            modules[top] = module
            distributions = [distribution(each) for each in packages_distributions().get(top, ())]
        else:
            distributions = [_distribution(name)]
            warm += [each for each in _tops(distributions[0]) if each.isidentifier() and not each.startswith("_")]
        for each in distributions:
            _add_required(each, found)
    trees: list[str] = []
    for each in found.values():
        for top, path in _tops(each).items():
            trees.append(os.path.realpath(path))
            if top.isidentifier() and (module := _module(top)):
                modules.setdefault(top, module)
    for module in modules.values():
        trees += [module["file"]] if module["folders"] is None else module["folders"]
    return Packages(warm=tuple(dict.fromkeys(warm)), modules=modules, trees=_outermost(trees))


def _module(top: str) -> dict[str, Any] | None:
    """Where a top-level module is; None when there is none. Finding one imports nothing."""
    try:
        spec = importlib.util.find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = spec.submodule_search_locations
    return {
        "file": os.path.realpath(spec.origin) if spec.has_location and spec.origin else "",
        "folders": None if folders is None else [os.path.realpath(folder) for folder in folders],
    }


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except (PackageNotFoundError, ValueError):
        hint = did_you_mean(name, packages_distributions())
        raise InputError(
            f"sandbox.packages: {name!r} is not installed here{hint}\n"
            "install it beside rayzero, or take it out of sandbox.packages"
        ) from None


def _add_required(each: Distribution, found: dict[str, Distribution]) -> None:
    """Add a distribution and what it requires, without its extras, as far as it is installed."""
    waiting = [each]
    while waiting:
        each = waiting.pop()
        if each.name in found:
            continue
        found[each.name] = each
        for requirement in each.requires or ():
            name = _REQUIREMENT.match(requirement)
            if name and not _EXTRA.search(requirement):
                try:
                    waiting.append(distribution(name[0]))
                except PackageNotFoundError:  # of another platform or version of Python
                    continue


def _tops(each: Distribution) -> dict[str, str]:
    """What a distribution puts beside others: name of a module or of a folder of libraries → path."""
    found: dict[str, str] = {}
    for file in each.files or ():
        top = file.parts[0]
        if top in ("..", "__pycache__") or top.endswith((".dist-info", ".egg-info", ".data", ".pth")):
            continue
        found[top if len(file.parts) > 1 else top.partition(".")[0]] = str(each.locate_file(top))
    return found


def _outermost(paths: Sequence[str]) -> tuple[str, ...]:
    """Those that are there and lie in none of the others."""

    def each() -> Iterator[str]:
        last = ""
        for path in sorted(set(paths), key=lambda path: path.split("/")):
            if os.path.exists(path) and not (last and path.startswith(last + "/")):
                last = path
                yield path

    return tuple(each())
