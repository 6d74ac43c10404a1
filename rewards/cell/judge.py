"""The judge of assert-style tests: holds their text and their expected values, in a cell of its own.

The names of the program under test are remote handles here (see peer.py); what an assertion compares are plain values of
this process. What the tests define, and Python's builtins, win over names of the program's: a program cannot replace
`abs`, `sorted` or a helper of the tests'.
"""

import ast
import builtins
import importlib
import json
import socket
from typing import Any

from rewards.cell.messages import send
from rewards.cell.peer import Ended, Peer
from rewards.cell.remote import Remote, Unsupported, make_remote
from rewards.cell.values import MODULES

_MOST_WORDS = 300


class Namespace(dict[str, Any]):
    """Globals of the tests: a name that is not here is asked of the program."""

    def __init__(self, peer: Peer, program: Remote, shadowing: frozenset[str], modules: frozenset[str]) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self._peer = peer
        self._program = program
        self._shadowing = shadowing
        self._modules = modules

    def __missing__(self, name: str) -> Any:
        if name.startswith("__") or (hasattr(builtins, name) and name not in self._shadowing):
            raise KeyError(name)
        if name in self._modules:
            return importlib.import_module(name)
        value = self._peer.ask("name", self._program, name)
        self._peer.handles.named(name, value)
        return value


def run(text: bytes, host: socket.socket, channel: socket.socket) -> None:
    """Run the tests one after another and tell the host each verdict.

    `text`: JSON with `setup` (code to run first), `entry_point` (taken from the program even if the set-up defines it),
    `tests` (a list of `{"code"}` or `{"function", "arguments", "expected"}`), `first` (index to start at), `stop` (end at
    the first failure).
    """
    order = json.loads(text)
    try:
        setup = compile(order["setup"], "setup.py", "exec", dont_inherit=True)
        tests = [_compiled(test) for test in order["tests"]]
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as problem:
        send(host, {"event": "invalid", "reason": _describe(problem)})  # whatever the program does
        return
    peer = Peer(channel, open_house=False)
    try:
        _load_program(peer)
        # Functions of the tests keep these globals; the program is imported before so that names can be asked of it.
        modules = _modules([order["setup"], *(test["code"] for test in order["tests"] if "code" in test)])
        namespace = Namespace(peer, peer.root(), _shadowing(order["tests"]), modules)
        exec(setup, namespace)
        if order["entry_point"]:
            if "check" not in namespace:
                send(host, {"event": "invalid", "reason": "`test` defines no function `check`"})
                return
            namespace[order["entry_point"]] = peer.ask("name", peer.root(), order["entry_point"])
    except BaseException as problem:  # noqa: BLE001 - whatever it is, there is nothing to test
        event = "invalid" if _lacks_module(problem) else "broken"
        send(host, {"event": event, "reason": _describe(problem)})
        return
    for index in range(order["first"], len(order["tests"])):
        peer.handles.spoilt = None
        outcome, reason = _judge(tests[index], namespace)
        if outcome == "pass" and peer.handles.spoilt is not None:  # and the test caught it
            outcome, reason = _spoilt(peer.handles.spoilt)
        if outcome == "invalid":
            send(host, {"event": "invalid", "reason": reason})
            return
        send(host, {"event": "verdict", "index": index, "outcome": outcome, "reason": reason})
        if outcome != "pass" and order["stop"]:
            return
        if reason == _ENDED:
            return


_ENDED = "the program ended"


def _load_program(peer: Peer) -> None:
    peer.ask("call", make_remote(peer, 1, "function", "load"), [], {})


def _compiled(test: dict[str, Any]) -> dict[str, Any]:
    """A test with its code compiled, as `expression` where it is no more than that. Raises ValueError and SyntaxError."""
    if "code" not in test:
        return test
    tree = ast.parse(test["code"], "test.py")
    if not tree.body:
        raise ValueError("a test that holds no statement")
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        expression = ast.Expression(tree.body[0].value)
        return {"expression": compile(expression, "test.py", "eval", dont_inherit=True)}
    return {"code": compile(tree, "test.py", "exec", dont_inherit=True)}


def _judge(test: dict[str, Any], namespace: Namespace) -> tuple[str, str]:
    try:
        if "code" in test:
            exec(test["code"], namespace)
            return "pass", ""
        if "expression" in test:  # a comparison without `assert`, or a call that does the asserting
            return ("fail", "False") if eval(test["expression"], namespace) is False else ("pass", "")  # noqa: S307 - in the judge's cell
        return _judge_call(test, namespace)
    except (Unsupported, Ended) as problem:
        return _spoilt(problem)
    except BaseException as problem:  # noqa: BLE001 - a test that raises has failed
        return "invalid" if _lacks_module(problem) else "fail", _describe(problem)


def _spoilt(problem: BaseException) -> tuple[str, str]:
    return ("fail", _ENDED) if isinstance(problem, Ended) else ("unsupported", str(problem)[:_MOST_WORDS])


def _lacks_module(problem: BaseException) -> bool:
    """Whether the tests import what is not there. An exception of the program's arrives without such details."""
    return isinstance(problem, ModuleNotFoundError) and problem.name is not None


def _judge_call(test: dict[str, Any], namespace: Namespace) -> tuple[str, str]:
    function = _find(test["function"], namespace)
    result = _as_json(function(*test["arguments"]))
    if any(_equal(result, expected) for expected in test["expected"]):
        return "pass", ""
    return "fail", f"returned {_short(result)}, expected {_short(test['expected'][0])}"


def _find(name: str, namespace: Namespace) -> Any:
    """A function of the program's, or the method of that name of its class `Solution`."""
    try:
        return namespace.__missing__(name)
    except KeyError:
        return getattr(namespace["Solution"](), name)


def _equal(result: object, expected: object) -> bool:
    return bool(result == expected)


def _as_json(value: object) -> object:
    """Expected values of such tests come out of JSON, which has no tuples: a tuple counts as a list."""
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return value


def _shadowing(tests: list[dict[str, Any]]) -> frozenset[str]:
    """Builtin names that the program may define: the one that is under test.

    Some tasks ask for a function called `sum`. It is taken from the program only where the tests name nothing else that
    could be the program's: the innermost function that all of them call. A function to call is named outright.
    """
    called: set[str] | None = None
    innermost = ""
    for test in tests:
        if "code" not in test:
            return frozenset({test["function"] for test in tests})
        try:
            tree = ast.parse(test["code"])
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return frozenset()
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if any(not hasattr(builtins, name) for name in names):
            return frozenset()
        calls = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        called = set(calls) if called is None else called & set(calls)
        innermost = next((name for name in reversed(calls) if name in called), "")
    return frozenset({innermost} - {""})


def _modules(texts: list[str]) -> frozenset[str]:
    """Modules that the tests use without importing them: `math.isclose`. A class of the program's called `math` is not
    asked whether its answer is close.
    """
    used: dict[str, set[str]] = {}
    others: set[str] = set()
    bases: set[ast.expr] = set()
    for node in (node for text in texts for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
            bases.add(node.value)
        elif isinstance(node, ast.Name) and node not in bases:
            others.add(node.id)
    names = used.keys() & set(MODULES) - others
    return frozenset(name for name in names if used[name] <= set(dir(importlib.import_module(name))))


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError, MemoryError):
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 100 else text[:97] + "..."


def _describe(problem: BaseException) -> str:
    if isinstance(problem, Ended):
        return _ENDED
    try:
        words = str(problem)
    except BaseException:  # noqa: BLE001 - an exception may hold what cannot be shown
        words = ""
    return f"{type(problem).__name__}: {words}"[:_MOST_WORDS].rstrip(": ")
