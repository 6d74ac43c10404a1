"""What Python code of the standard library runs after a fork, kept until a program forks by itself.

`threading`, `random` and `logging` register such code. It costs more than the fork itself and has nothing to do in a child
of a process with one thread and nothing running. So what is registered while the zygote loads is kept aside, and
registered when a program forks by itself.
"""

import os
from collections.abc import Callable
from typing import Any

_kept: list[dict[str, Any]] = []
_fork = os.fork
_register: Callable[..., None] = os.register_at_fork


def keep() -> None:
    """From here on what is registered is kept aside."""
    os.register_at_fork = lambda **hooks: _kept.append(hooks)


def arm() -> None:
    """From here on what is registered counts, and the program's first fork registers what was kept."""
    os.register_at_fork = _register
    os.fork = _register_and_fork


def _register_and_fork() -> int:
    os.fork = _fork
    for hooks in _kept:
        _register(**hooks)
    return _fork()
