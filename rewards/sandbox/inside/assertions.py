"""Runs assert-style tests: holds their text and their expected values, in a cell of its own.

The names of the program under test are remote handles here (see rpc.py); what an assertion compares are plain values of
this process. What the tests define, and Python's builtins, win over names of the program's: a program cannot replace
`abs`, `sorted` or a helper of the tests'.
"""

import ast
import builtins
import json
import math
import re
import socket
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rewards.sandbox.inside import arrays, borrowed_names
from rewards.sandbox.inside.messages import send
from rewards.sandbox.inside.proxies import Remote, Unsupported, make_remote
from rewards.sandbox.inside.rpc import Ended, Peer

_MOST_WORDS = 300
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


class Namespace(dict[str, Any]):
    """Globals of the tests: a name that is not here is asked of the program."""

    def __init__(self, peer: Peer, program: Remote, order: dict[str, Any]) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self._peer = peer
        self._program = program
        trees = [ast.parse(order["setup"]), *(ast.parse(test["code"]) for test in order["tests"] if "code" in test)]
        self._shadowing = borrowed_names.find_shadowing(order["tests"])
        self._borrowed = borrowed_names.find_borrowed(trees, order["entry_point"])
        self._lacking = borrowed_names.find_lacking(trees)
        self.tolerance: list[float] = order["tolerance"]
        """Relative and absolute, of numbers that a called function returns."""

    def __missing__(self, name: str) -> Any:
        if name.startswith("__") or (hasattr(builtins, name) and name not in self._shadowing):
            raise KeyError(name)
        if name in self._borrowed:
            return self._borrowed[name]
        if name in self._lacking:
            module = self._lacking[name]
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        value = self._peer.ask("name", self._program, name)
        self._peer.handles.note_name(name, value)
        return value


def run(text: bytes, host: socket.socket, channel: socket.socket) -> None:
    """Run the tests one after another and tell the host each result.

    `text`: JSON with `setup` (code to run first), `entry_point` (taken from the program even if the set-up defines it),
    `tests` (a list of `{"code"}` or `{"function", "arguments", "expected"}`), `first` (index to start at), `stop` (end at
    the first failure), `tolerance` (relative and absolute).
    """
    order = json.loads(text, parse_int=_integer)
    try:
        setup = compile(order["setup"], "setup.py", "exec", dont_inherit=True)
        tests = [_compile(test) for test in order["tests"]]
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as problem:
        send(host, {"event": "invalid", "reason": _describe(problem)})  # whatever the program does
        return
    arrays.tell_empty_apart()
    peer = Peer(channel, open_house=False)
    try:
        _load_program(peer)
        # Functions of the tests keep these globals; the program is imported before so that names can be asked of it.
        namespace = Namespace(peer, peer.root(), order)
        exec(setup, namespace)
        if order["entry_point"]:
            if "check" not in namespace:
                send(host, {"event": "invalid", "reason": "`test` defines no function `check`"})
                return
            namespace[order["entry_point"]] = peer.ask("name", peer.root(), order["entry_point"])
    except BaseException as problem:  # noqa: BLE001 - whatever it is, there is nothing to test
        event = "invalid" if _tests_lack_module(problem) else "broken"
        send(host, {"event": event, "reason": _describe(problem), "outcome": _failure(problem)})
        return
    for index in range(order["first"], len(order["tests"])):
        peer.handles.spoilt = None
        outcome, reason = _run_test(tests[index], namespace)
        if outcome == "pass" and peer.handles.spoilt is not None:  # and the test caught it
            outcome, reason = _spoilt(peer.handles.spoilt)
        if outcome == "invalid":
            send(host, {"event": "invalid", "reason": reason})
            return
        send(host, {"event": "result", "index": index, "outcome": outcome, "reason": reason})
        if outcome != "pass" and order["stop"]:
            return
        if reason == _ENDED:
            return


def _integer(digits: str) -> int:
    """Python itself reads no more than 4,300 digits."""
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))


_ENDED = "the program ended"


def _load_program(peer: Peer) -> None:
    peer.ask("call", make_remote(peer, 1, "function", "load"), [], {})


def _compile(test: dict[str, Any]) -> dict[str, Any]:
    """A test with its code compiled; as `expression` where it is one call, which may do the asserting.

    A comparison that stands alone is an assertion without its word. Raises ValueError and SyntaxError.
    """
    if "code" not in test:
        return test
    tree = ast.parse(test["code"], "test.py")
    if not tree.body:
        raise ValueError("a test that holds no statement")
    first = tree.body[0]
    if len(tree.body) == 1 and isinstance(first, ast.Expr) and isinstance(first.value, ast.Call):
        code = compile(ast.Expression(first.value), "test.py", "eval", dont_inherit=True)
        return {"expression": code, "called": _root(first.value.func)}
    tree.body = [_assert_comparison(statement) for statement in tree.body]
    return {"code": compile(tree, "test.py", "exec", dont_inherit=True)}


def _root(expression: ast.expr) -> str:
    """The name that an expression starts from."""
    while isinstance(expression, ast.Attribute | ast.Call | ast.Subscript):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return expression.id if isinstance(expression, ast.Name) else ""


def _assert_comparison(statement: ast.stmt) -> ast.stmt:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Compare | ast.BoolOp | ast.UnaryOp):
        return statement
    return ast.copy_location(ast.Assert(test=statement.value, msg=None), statement)


def _run_test(test: dict[str, Any], namespace: Namespace) -> tuple[str, str]:
    try:
        if "code" in test:
            exec(test["code"], namespace)
            return "pass", ""
        if "expression" in test:
            value = eval(test["expression"], namespace)  # noqa: S307 - in the tests' own cell
            # A function of the tests' asserts by itself; the program's only answers.
            holds = value is not False if test["called"] in namespace else bool(value)
            return ("pass", "") if holds else ("fail", _short(value))
        return _run_call(test, namespace)
    except (Unsupported, Ended) as problem:
        return _spoilt(problem)
    except BaseException as problem:  # noqa: BLE001 - a test that raises has failed
        return "invalid" if _tests_lack_module(problem) else _failure(problem), _describe(problem)


def _spoilt(problem: BaseException) -> tuple[str, str]:
    return ("fail", _ENDED) if isinstance(problem, Ended) else ("unsupported", str(problem)[:_MOST_WORDS])


def _tests_lack_module(problem: BaseException) -> bool:
    """Whether the tests import what is not there. An exception of the program's arrives without such details."""
    return isinstance(problem, ModuleNotFoundError) and problem.name is not None


def _failure(problem: BaseException) -> str:
    """The outcome of a test that ended by an exception of the program's, or by one of its own."""
    return "missing" if isinstance(problem, ModuleNotFoundError) else "fail"


def _run_call(test: dict[str, Any], namespace: Namespace) -> tuple[str, str]:
    """Call a function with each reading of its arguments, until one gives what is expected."""
    problem: Exception | None = None
    for arguments in _readings(test["arguments"]):
        try:
            result = _as_json(_find(test["function"], namespace)(*arguments))
        except Exception as raised:  # noqa: BLE001 - it may be meant for the other reading; the last one counts
            problem = raised
            continue
        if any(_equal(result, expected, namespace.tolerance) for expected in test["expected"]):
            return "pass", ""
        problem = None
    if problem is not None:
        raise problem
    said, wanted = _short(result), _short(test["expected"][0])
    # An object of the program's or of a package, such as sympy's numbers, is no number.
    looks = "an object that looks like " if said == wanted else ""
    return "fail", f"returned {looks}{said}, expected {wanted}"


def _readings(arguments: list[Any]) -> list[list[Any]]:
    """Lists of arguments that these may stand for. JSON has no other keys than text: `{"1": 2}` may have been `{1: 2}`."""
    restored = [_with_whole_keys(argument) for argument in arguments]
    return [arguments] if restored == arguments else [restored, arguments]


def _with_whole_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_whole_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    whole = all(_WHOLE.fullmatch(key) for key in value)
    return {int(key) if whole else key: _with_whole_keys(item) for key, item in value.items()}


def _find(name: str, namespace: Namespace) -> Any:
    """A function of the program's, or the method of that name of its class `Solution`."""
    try:
        return namespace.__missing__(name)
    except KeyError:
        return getattr(namespace["Solution"](), name)


def _equal(result: object, expected: object, tolerance: list[float]) -> bool:
    """Whether a result is what JSON says, numbers with a fraction within (relative, absolute) of what is expected."""
    if isinstance(result, list) and isinstance(expected, list):
        return len(result) == len(expected) and all(
            _equal(one, other, tolerance) for one, other in zip(result, expected, strict=True)
        )
    if isinstance(result, dict) and isinstance(expected, dict):
        return result.keys() == expected.keys() and all(
            _equal(item, expected[key], tolerance) for key, item in result.items()
        )
    if result == expected:
        return True
    if not (isinstance(result, int | float | Decimal | Fraction) and isinstance(expected, int | float)):
        return False
    if isinstance(result, int) and isinstance(expected, int):
        return False
    relative, absolute = tolerance
    try:
        return math.isclose(float(result), expected, rel_tol=0, abs_tol=max(absolute, _part(relative, expected)))
    except OverflowError:  # an integer beyond all floats
        return False


def _part(relative: float, expected: int | float) -> float:
    """The relative part of a tolerance; of a whole number a share may be the next whole number, so it has none."""
    return relative * abs(expected) if isinstance(expected, float) and math.isfinite(expected) else 0.0


def _as_json(value: object) -> object:
    """Expected values of such tests come out of JSON: there a tuple or an array is a list, and a key is text."""
    if arrays.pack(value) is not None:
        return value.tolist()  # type: ignore[attr-defined]
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        made = {_as_key(key): _as_json(item) for key, item in value.items()}
        return made if len(made) == len(value) else value
    return value


def _as_key(key: object) -> object:
    return json.dumps(key) if key is None or isinstance(key, int | float) else key


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
