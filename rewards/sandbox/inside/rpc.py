"""Remote calls between the tests and the program under test, over a socket between their two cells.

Either side can call what the other handed out. A call carries its mutable arguments back, so that tests of functions that
work in place see the change. The tests' side answers little: calls of functions that it handed out, and public attributes of
instances that it handed out; never frames, globals or code of its tests.
"""

import builtins
import functools
import json
import operator
import socket
import struct
import types
from collections.abc import Callable
from typing import Any

from rewards.sandbox.inside.codec import Codec, Packed, Shared
from rewards.sandbox.inside.proxies import ITERATORS, OPERATORS, Handles, Remote, Unsupported, inner, make_remote

MAX_FRAME = 16 << 20
"""Bytes of the longest message; a longer one ends the conversation."""


class Ended(BaseException):
    """The other side closed the conversation, or said what cannot be understood. Not for tests to catch."""


class Peer:
    """One end. `open_house`: serve every request (the program's side); else only what the module's text says."""

    def __init__(self, channel: socket.socket, open_house: bool) -> None:
        self._channel = channel
        self._open_house = open_house
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._imported: dict[int, Any] = {}
        self.handles = Handles(self._request, trusting=open_house)
        self._codec = Codec(self._export, self._import)

    # --- Asking

    def ask(self, operation: str, *arguments: object) -> Any:
        """One request; serves the other side's requests while it waits.

        Raises:
            Ended: no answer will come.
            BaseException: what the operation raised over there, by its nearest builtin type.
        """
        self.handles.forget_answers()
        return self._request(operation, *arguments)

    def _request(self, operation: str, *arguments: object) -> Any:
        shared = Shared()
        packed = [self._codec.pack(argument, shared) for argument in arguments]
        sent = len(shared.by_key)
        self._send(["ask", operation, packed, sent])
        while True:
            message = self._receive()
            try:
                if message[0] == "ask":
                    self._serve(message)
                    continue
                kind, packed_result, changes = message
                result = self._codec.unpack(packed_result, shared)
                for key, content in changes:
                    if key < sent:
                        self._codec.refill(shared.by_key[key], content, shared)
            except _MALFORMED as problem:
                raise self._end("an answer that cannot be understood") from problem
            if kind == "raised":
                # Anywhere else it would end a loop of the test's, and `all(map(…))` would hold of nothing.
                stops = isinstance(result, StopIteration) and operation != "next"
                raise RuntimeError("StopIteration") if stops else result
            if isinstance(result, Remote):
                self.handles.note_origin(operation, arguments, result)
            return result

    # --- Serving

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            try:
                message = self._receive()
            except Ended:
                return
            self._serve(message)

    def _serve(self, message: list[Any]) -> None:
        shared = Shared()
        before: dict[int, Packed] = {}
        try:
            _, operation, packed, _ = message
            arguments = [self._codec.unpack(argument, shared) for argument in packed]
            before = self._contents(shared)
            if not self._open_house:
                if operation == "operator":
                    _check_operator(arguments)
                else:
                    _check_handed_out(packed)
                    _check_allowed(operation, arguments)
            outcome, value = "returned", _OPERATIONS[operation](*arguments)
        except (Ended, Unsupported):
            raise
        except BaseException as problem:  # noqa: BLE001 - it belongs to the side that asked
            outcome, value = "raised", problem
        try:
            answer = [outcome, self._codec.pack(value, shared), self._changes(before, shared)]
            self._send(answer)
        except (ValueError, RecursionError, MemoryError) as problem:
            self._send(
                ["raised", ["h", *self._export(TypeError(f"a value that cannot be handed over: {problem}"))], []]
            )

    def _contents(self, shared: Shared) -> dict[int, Packed]:
        return {key: self._codec.content(container, shared) for key, container in list(shared.by_key.items())}

    def _changes(self, before: dict[int, Packed], shared: Shared) -> list[Any]:
        now = {key: self._codec.content(shared.by_key[key], shared) for key in before}
        return [[key, content] for key, content in now.items() if content != before[key]]

    # --- Handles

    def _export(self, value: object) -> list[Any]:
        if isinstance(value, Remote) and inner(value)[0] is self:
            return ["yours", inner(value)[1]]
        if isinstance(value, BaseException):
            return ["exception", *self._describe_class(type(value)), [_plain(part) for part in value.args]]
        number = self._number(value)
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception class", *self._describe_class(value)]
        return ["object", number, _kind_of(value), _name_of(value)]

    def hand_out(self, value: object) -> None:
        """Give `value` the next number; what is handed out first is number 0, the other side's `root`."""
        self._number(value)

    def root(self) -> "Remote":
        return make_remote(self, 0, "instance", "namespace")

    def _number(self, value: object) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._exported)
            self._exported.append(value)  # held for good: a number never changes its meaning
        return number

    def _describe_class(self, kind: type) -> list[Any]:
        builtin = next(base for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base)
        own = -1 if builtin is kind else self._number(kind)
        return [own, kind.__name__, builtin.__name__]

    def _import(self, tail: list[Any]) -> object:
        what = tail[0]
        if what == "yours":
            return self._exported[tail[1]]
        if what == "exception class":
            return self._exception_class(*tail[1:4])
        if what == "exception":
            kind = self._exception_class(*tail[1:4])
            return _make_exception(kind, [_plain(part) for part in tail[4]])
        _, number, kind, name = tail
        if number not in self._imported:
            self._imported[number] = make_remote(self, int(number), str(kind), str(name))
        return self._imported[number]

    def _exception_class(self, number: int, name: str, base: str) -> type[BaseException]:
        builtin = getattr(builtins, base)
        if not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
            raise ValueError(base)
        if number < 0:
            return builtin
        if number not in self._imported:
            self._imported[number] = type(name, (builtin,), {})
        made: type[BaseException] = self._imported[number]
        return made

    # --- Frames

    def _end(self, words: str) -> Ended:
        self.handles.spoilt = Ended(words)
        return Ended(words)

    def _send(self, message: list[Any]) -> None:
        text = json.dumps(message).encode()
        if len(text) > MAX_FRAME:
            raise ValueError(f"{len(text)} bytes, {MAX_FRAME} at most")
        try:
            self._channel.sendall(struct.pack("<I", len(text)) + text)
        except OSError as problem:
            raise self._end("the other side is gone") from problem

    def _receive(self) -> list[Any]:
        (size,) = struct.unpack("<I", self._read(4))
        if size > MAX_FRAME:
            raise self._end(f"a message of {size} bytes")
        try:
            message = json.loads(self._read(size))
        except _MALFORMED as problem:
            raise self._end("a message that is not JSON") from problem
        if not (isinstance(message, list) and message and message[0] in ("ask", "returned", "raised")):
            raise self._end("a message of no known kind")
        return message

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._channel.recv(min(size - len(parts), 1 << 20))
            except OSError as problem:
                raise self._end("the other side is gone") from problem
            if not part:
                raise self._end("the other side is gone")
            parts += part
        return bytes(parts)


_MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError)


def _plain(value: object) -> object:
    """Arguments of exceptions travel as text unless they are plain scalars."""
    return value if type(value) in (str, int, float, bool, type(None)) else repr(value)


def _make_exception(kind: type[BaseException], arguments: list[Any]) -> BaseException:
    try:
        return kind(*arguments)
    except TypeError:  # some take arguments of their own (UnicodeDecodeError)
        made = kind.__new__(kind)
        made.args = tuple(arguments)
        return made


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodDescriptorType)


def _kind_of(value: object) -> str:
    if isinstance(value, type):
        return "class"
    if isinstance(value, _FUNCTIONS):
        return "function"
    if isinstance(value, types.GeneratorType):
        return "generator"
    if hasattr(type(value), "__next__"):
        return "iterator"
    return "callable" if callable(value) else "instance"


def _name_of(value: object) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _check_handed_out(packed: list[Any]) -> None:
    """Only of what it was given: what both sides know by name it has itself, and here it would act on the tests."""
    if not (packed and isinstance(packed[0], list) and packed[0][:2] == ["h", "yours"]):
        raise TypeError("nothing that was handed out")


_NEVER_CALLED = (
    *(eval, exec, compile, open, input, breakpoint, __import__),
    *(getattr, setattr, delattr, vars, globals, locals, dir, type, super),
)
"""Builtins that would act on the tests, should they ever be handed out."""


def _check_operator(arguments: list[Any]) -> None:
    """Between instances of the tests' classes, or one and something else."""
    name, *sides = arguments
    if name not in OPERATORS or not any(type(side).__module__ == "tests" for side in sides):
        raise TypeError(f"operator {name} is not served")


def _check_allowed(operation: str, arguments: list[Any]) -> None:
    """What the program may ask of the tests' side."""
    target = arguments[0] if arguments else None
    if isinstance(target, Remote):
        raise TypeError("not an object of this side")
    kind = _kind_of(target)
    if any(target is each for each in _NEVER_CALLED):
        raise TypeError(f"{_name_of(target)} is not served")
    if operation == "call" and (kind in ("function", "class") or isinstance(target, functools.partial)):
        return
    if operation in ("next", "iter") and kind in ITERATORS:
        return
    kind = "instance" if kind == "callable" else kind
    own_class = type(target).__module__ == "tests"
    public = operation in ("get", "set") and not str(arguments[1]).startswith("_")
    if public and kind == "instance" and own_class:
        if operation == "set" and callable(getattr(type(target), str(arguments[1]), None)):
            raise TypeError("a method of the tests' cannot be replaced")
        return
    if operation in ("iter", "length", "item", "str", "bool", "hash", "call") and kind == "instance" and own_class:
        return
    raise TypeError(f"{operation} of a {kind} is not served")


def _call(target: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return target(*arguments, **keywords)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "get": getattr,
    "set": setattr,
    "iter": iter,
    "next": next,
    "length": len,
    "contains": operator.contains,
    "item": operator.getitem,
    "set item": operator.setitem,
    "delete item": operator.delitem,
    "bool": bool,
    "str": str,
    "repr": repr,
    "hash": hash,
    "abs": abs,
    "negative": operator.neg,
    "positive": operator.pos,
    "invert": operator.invert,
    "round": round,
    "int": int,
    "float": float,
    "index": operator.index,
    "is instance": isinstance,
    "is subclass": issubclass,
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, problem: bool(manager.__exit__(problem and type(problem), problem, None)),
    "operator": lambda name, left, right: getattr(operator, name)(left, right),
    "name": lambda namespace, name: namespace[name],
    "names": lambda namespace: sorted(namespace),
}
