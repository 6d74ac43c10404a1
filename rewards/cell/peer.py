"""Remote calls between the judge and the program under test, over a socket between their two cells.

Either side can call what the other handed out. A call carries its mutable arguments back, so that tests of functions that
work in place see the change. The judge answers little: calls of functions that it handed out, and public attributes of
instances that it handed out; never frames, globals or code of its tests.
"""

import builtins
import functools
import json
import operator
import re
import socket
import struct
import types
from collections.abc import Callable
from typing import Any

from rewards.cell.values import Codec, Packed, Shared

MAX_FRAME = 16 << 20
"""Bytes; a longer message ends the conversation."""


class Ended(BaseException):
    """The other side closed the conversation, or said what cannot be understood. Not for tests to catch."""


class Unsupported(BaseException):
    """A test asked of a handle what this protocol does not express. Not for tests to catch."""


class Peer:
    """One end. `open_house`: serve every request (the program's side); else only what the module's text says."""

    def __init__(self, channel: socket.socket, open_house: bool) -> None:
        self._channel = channel
        self._open_house = open_house
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._imported: dict[int, Any] = {}
        self.mixed: set[int] = set()
        """Numbers of handles that came out of an operator between a handle and a plain value."""
        self._classes: set[int] = set()
        self._instances: set[int] = set()
        self._codec = Codec(self._export, self._import)

    # --- Asking

    def ask(self, operation: str, *arguments: object) -> Any:
        """One request; serves the other side's requests while it waits.

        Raises:
            Ended: no answer will come.
            BaseException: what the operation raised over there, by its nearest builtin type.
        """
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
                raise Ended("an answer that cannot be understood") from problem
            if kind == "raised":
                # Anywhere else it would end a loop of the test's, and `all(map(…))` would hold of nothing.
                stops = isinstance(result, StopIteration) and operation != "next"
                raise RuntimeError("StopIteration") if stops else result
            if isinstance(result, Remote):
                self._note_origin(operation, arguments, result)
            return result

    # --- What the tests made themselves

    def named(self, name: str, value: object) -> None:
        """The tests took this of the program under a name. One in CapWords, and a class: they know that it is one."""
        if isinstance(value, Remote) and _inner(value)[2] == "class" and _CAP_WORDS.fullmatch(name):
            self._classes.add(_inner(value)[1])

    def made_by_tests(self, remote: "Remote") -> bool:
        """Whether the tests called a class to get it. Only such an object is asked whether it holds or is something;
        one that a function returned, where a plain value should be, would say yes.
        """
        return _inner(remote)[1] in self._instances

    def _note_origin(self, operation: str, arguments: tuple[object, ...], result: "Remote") -> None:
        target = arguments[0]
        if operation == "call" and isinstance(target, Remote) and _inner(target)[1] in self._classes:
            self._instances.add(_inner(result)[1])
        else:
            self._instances.discard(_inner(result)[1])

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
        if isinstance(value, Remote) and _inner(value)[0] is self:
            return ["yours", _inner(value)[1]]
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
        return Remote(self, 0, "instance", "namespace")

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
            self._imported[number] = Remote(self, int(number), str(kind), str(name))
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

    def _send(self, message: list[Any]) -> None:
        text = json.dumps(message).encode()
        if len(text) > MAX_FRAME:
            raise ValueError(f"{len(text)} bytes, {MAX_FRAME} at most")
        try:
            self._channel.sendall(struct.pack("<I", len(text)) + text)
        except OSError as problem:
            raise Ended("the other side is gone") from problem

    def _receive(self) -> list[Any]:
        (size,) = struct.unpack("<I", self._read(4))
        if size > MAX_FRAME:
            raise Ended(f"a message of {size} bytes")
        try:
            message = json.loads(self._read(size))
        except _MALFORMED as problem:
            raise Ended("a message that is not JSON") from problem
        if not (isinstance(message, list) and message and message[0] in ("ask", "returned", "raised")):
            raise Ended("a message of no known kind")
        return message

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._channel.recv(min(size - len(parts), 1 << 20))
            except OSError as problem:
                raise Ended("the other side is gone") from problem
            if not part:
                raise Ended("the other side is gone")
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
    if hasattr(type(value), "__next__"):
        return "iterator"
    return "instance"


def _name_of(value: object) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _check_handed_out(packed: list[Any]) -> None:
    """Only of what it was given: what both sides know by name it has itself, and here it would act on the tests."""
    if not (packed and isinstance(packed[0], list) and packed[0][:2] == ["h", "yours"]):
        raise TypeError("nothing that was handed out")


def _check_allowed(operation: str, arguments: list[Any]) -> None:
    """What the program may ask of the judge."""
    target = arguments[0] if arguments else None
    if isinstance(target, Remote):
        raise TypeError("not an object of this side")
    kind = _kind_of(target)
    if operation == "call" and (kind in ("function", "class") or isinstance(target, functools.partial)):
        return
    if operation in ("next", "iter") and kind == "iterator":
        return
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
    "int": int,
    "float": float,
    "is instance": isinstance,
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, *why: bool(manager.__exit__(None, None, None)),
    "operator": lambda name, left, right: getattr(operator, name)(left, right),
    "name": lambda namespace, name: namespace[name],
    "names": lambda namespace: sorted(namespace),
}
_INNER = "_remote_inner"
_CAP_WORDS = re.compile("[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
_PREDICATES = {
    name for kind in (str, set, float) for name in dir(kind) if name.startswith("is") or name.endswith("swith")
}
"""What a test may ask of a text, a set or a number, to which an object that is none of them would say yes."""


class Remote:
    """An object that lives on the other side.

    It never equals a value of this side, and an operator that mixes it with one never yields a plain value, nor does
    the absolute value or another number made of the outcome: else an object whose subtraction, comparison or equality
    is made up would pass for a number.
    """

    def __init__(self, peer: Peer, number: int, kind: str, name: str) -> None:
        object.__setattr__(self, _INNER, (peer, number, kind, name))

    def __call__(self, *arguments: object, **keywords: object) -> Any:
        return self._ask("call", list(arguments), keywords)

    def __getattr__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            return _inner(self)[3]
        if name.startswith("__"):
            raise AttributeError(name)
        peer, _, kind, _ = _inner(self)
        if name in _PREDICATES and kind == "instance" and not peer.made_by_tests(self):
            raise Unsupported(f"{name!r} of an object of the program's")
        return self._ask("get", name)

    def __setattr__(self, name: str, value: object) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Any:
        return self if _inner(self)[2] == "iterator" else self._ask("iter")

    def __next__(self) -> Any:
        return self._ask("next")

    def __contains__(self, value: object) -> bool:
        if _inner(self)[0].made_by_tests(self):
            return _exactly(bool, self._ask("contains", value))
        return any(item is value or item == value for item in self)

    def __len__(self) -> int:
        return _exactly(int, self._ask("length"))

    def __getitem__(self, key: object) -> Any:
        return self._ask("item", key)

    def __setitem__(self, key: object, value: object) -> None:
        self._ask("set item", key, value)

    def __delitem__(self, key: object) -> None:
        self._ask("delete item", key)

    def __bool__(self) -> bool:
        return _exactly(bool, self._number("bool"))

    def __hash__(self) -> int:
        return _exactly(int, self._ask("hash"))

    def __str__(self) -> str:
        return _exactly(str, self._ask("str"))

    def __repr__(self) -> str:
        return _exactly(str, self._ask("repr"))

    def __abs__(self) -> Any:
        return self._number("abs")

    def __neg__(self) -> Any:
        return self._number("negative")

    def __int__(self) -> int:
        return _exactly(int, self._number("int"))

    def __float__(self) -> float:
        return _exactly(float, self._number("float"))

    def __enter__(self) -> Any:
        return self._ask("enter")

    def __exit__(self, *why: object) -> bool:
        return _exactly(bool, self._ask("exit"))

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Remote) and _inner(self)[0].ask("is instance", value, self) is True

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Remote) and _inner(self)[0].ask("operator", "eq", self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __await__(self) -> Any:
        raise Unsupported("coroutines of the program cannot be awaited by a test")

    def __mro_entries__(self, _: object) -> Any:
        raise Unsupported("classes of the program cannot be derived from in a test")

    def __reduce_ex__(self, _: object) -> Any:
        raise Unsupported("objects of the program cannot be copied by a test")

    def _ask(self, operation: str, *arguments: object) -> Any:
        return _inner(self)[0].ask(operation, self, *arguments)

    def _number(self, operation: str) -> Any:
        peer, number, _, _ = _inner(self)
        if number in peer.mixed:
            raise Unsupported(f"{operation!r} of what came out of an object of the program's and a plain value")
        return self._ask(operation)

    def _operate(self, name: str, other: object, swapped: bool) -> Any:
        pair = (other, self) if swapped else (self, other)
        peer = _inner(self)[0]
        plain = not isinstance(other, Remote)
        mixed = any(not isinstance(side, Remote) or _inner(side)[1] in peer.mixed for side in pair)
        if (plain and name in _ORDERINGS) or isinstance(other, set | frozenset | dict):
            raise Unsupported(f"{name!r} between an object of the program's and a plain value")
        result = peer.ask("operator", name, *pair)
        if mixed and not isinstance(result, Remote):
            raise Unsupported(f"{name!r} between an object of the program's and a plain value")
        if mixed:
            peer.mixed.add(_inner(result)[1])
        return result


_ORDERINGS = ("lt", "le", "gt", "ge")
_ARITHMETIC = [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
]


def _inner(remote: Remote) -> tuple[Peer, int, str, str]:
    inner: tuple[Peer, int, str, str] = object.__getattribute__(remote, _INNER)
    return inner


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value


def _define_operators() -> None:
    def method(name: str, swapped: bool) -> Callable[[Remote, object], Any]:
        return lambda self, other: self._operate(name, other, swapped)

    for name in _ORDERINGS:
        setattr(Remote, f"__{name}__", method(name, False))
    for name in _ARITHMETIC:
        setattr(Remote, f"__{name.strip('_')}__", method(name, False))
        setattr(Remote, f"__r{name.strip('_')}__", method(name, True))


_define_operators()
