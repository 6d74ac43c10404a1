"""The zygote's first lines.

Some of the standard library has Python code run after every fork (`threading`, `random`, `logging`). It costs more than
the fork itself and has nothing to do in a child of a process with one thread and nothing running; so what is registered
while the zygote loads is kept aside, and registered when a program forks by itself.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

_kept: list[dict[str, Any]] = []
_fork = os.fork
_register: Callable[..., None] = os.register_at_fork


def main() -> None:
    os.register_at_fork = lambda **hooks: _kept.append(hooks)
    from rewards.sandbox.inside import zygote

    sys.path.pop()  # where this package is found; cells see the standard library only
    zygote.main()


def arm() -> None:
    """From here on: what is registered counts, and the program's first fork registers what was kept."""
    os.register_at_fork = _register
    os.fork = _fork_armed


def _fork_armed() -> int:
    os.fork = _fork
    for hooks in _kept:
        _register(**hooks)
    return _fork()
