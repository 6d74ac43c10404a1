"""The packages that a recipe allows: found by a table from the host, and imported before the first program.

Only modules of the table are found, so a package beside them is as if it were not there. Those that start threads when they
are imported stay cold, since a process with threads cannot be forked safely: a program imports them by itself.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from typing import Any

_FAILED = 1
_MOST_WORDS = 1000


class StartsThreads(Exception):
    """A package that is to stay cold."""


class Finder:
    """Finds the top-level modules of the table; theirs are found in their folders as usual."""

    def __init__(self, modules: dict[str, dict[str, Any]]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        module = self._modules.get(name) if path is None else None
        if module is None:
            return None
        if module["file"]:
            return spec_from_file_location(name, module["file"], submodule_search_locations=module["folders"])
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = list(module["folders"] or ())
        return spec


def import_all(warm: Sequence[str], cold: Sequence[str], proc: int, announce: Callable[[str], None]) -> None:
    """Import the packages here, but for the cold ones, which are imported in a process of their own, to see that they can be.

    Args:
        proc: descriptor of a proc file system in which this process is visible.
        announce: is told each name before its import, which may end this process, and an empty one behind the last.

    Raises:
        StartsThreads: with the name of a package that has; this process is of no more use.
        ImportError: a package cannot be imported.
    """
    for name in warm:
        if name not in cold:
            announce(name)
            _import(name)
            if _threads(proc) > 1:
                raise StartsThreads(name)
    for name in cold:
        announce(name)
        _try(name)
    announce("")
    if "numpy" in sys.modules:  # a program behaves alike wherever and whenever it runs
        importlib.import_module("numpy.random").seed(0)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except BaseException as problem:
        raise ImportError(f"{type(problem).__name__}: {problem}"[:_MOST_WORDS]) from problem


def _try(name: str) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _import(name)
        except BaseException as problem:  # noqa: BLE001 - the parent raises it
            os.write(writing, str(problem).encode(errors="replace"))
            os._exit(_FAILED)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if status:
        raise ImportError(said or f"its import ends the interpreter, with wait status {status}")


def _threads(proc: int) -> int:
    tasks = os.open(f"{os.getpid()}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    try:
        return len(os.listdir(tasks))
    finally:
        os.close(tasks)
