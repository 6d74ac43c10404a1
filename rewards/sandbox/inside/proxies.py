"""Objects of the other side, as this side's code meets them.

In the cell of the tests a test may hold two kinds of them. An object that the tests made themselves, by calling a class of the
program's, answers for itself: the tests know that it is no plain value. Anything else came out of the program where the
tests' author may well have meant a plain value. It is asked for nothing but its parts, it gives the same answer each time
until something may have changed it, and it never is, compares with or turns into a number: else a program would pass that
makes up its differences, orders and sizes.
"""

import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

_INNER = "_remote_inner"
_CAPITAL = re.compile("[A-Z][A-Za-z0-9]*")
_REFUSED_METHODS = {
    name for kind in (str, set, float) for name in dir(kind) if name.startswith("is") or name.endswith("swith")
} | {
    *("difference", "symmetric_difference", "intersection", "union", "compare"),
    *("count", "find", "index", "rfind", "rindex"),
}
"""Methods by which a test may ask a text, a set or a number about an expected value, to which any other object could say yes."""


class Unsupported(BaseException):
    """A test asked of a handle what this protocol does not express. Not for tests to catch."""


class Handles:
    """What this side knows of the other's objects, by their numbers."""

    def __init__(self, request: Callable[..., Any], trusting: bool) -> None:
        """`trusting`: every object answers for itself (the program's side, which tests nothing)."""
        self._request = request
        self._trusting = trusting
        self._classes: set[int] = set()
        self._instances: set[int] = set()
        self._returned: set[int] = set()
        self._mixed: set[int] = set()
        self._exhausted: set[int] = set()
        self._seen: dict[tuple[Any, ...], Any] = {}
        self.spoilt: BaseException | None = None
        """The exception that ended a test, even if the test caught it."""

    def refuse(self, what: str) -> NoReturn:
        self.spoilt = self.spoilt or Unsupported(what)
        raise self.spoilt

    # --- Where objects come from

    def note_name(self, name: str, value: object) -> None:
        """Note that the tests took a value of the program under a name: a class with a capital is one that they know as one."""
        if isinstance(value, Remote) and inner(value)[2] == "class" and _CAPITAL.fullmatch(name):
            self._classes.add(inner(value)[1])

    def answers_for_itself(self, remote: "Remote") -> bool:
        number = inner(remote)[1]
        return self._trusting or number in self._instances or number in self._classes

    def is_container(self, remote: "Remote") -> bool:
        """Whether its length, items and iteration are its own affair. They stay so when a method returns the object:
        `stack.push(1)` does, and nobody takes that for a list.
        """
        return self.answers_for_itself(remote) or inner(remote)[1] in self._returned

    def is_mixed(self, remote: "Remote") -> bool:
        """Whether it came out of an operator between an object and a plain value."""
        return inner(remote)[1] in self._mixed

    def note_origin(self, operation: str, arguments: tuple[object, ...], result: "Remote") -> None:
        _, number, kind, _ = inner(result)
        targets = [inner(each)[1] for each in arguments if isinstance(each, Remote)]
        if operation in _KEEPING_TRUST:
            trusted = any(target in self._instances for target in targets)
        else:
            made = operation == "call" or (operation == "get" and kind == "instance")
            trusted = made and targets[0] in self._classes
        if trusted:
            self._instances.add(number)
        elif operation != "iter" and number in self._instances:
            self._instances.remove(number)
            self._returned.add(number)

    def mix(self, remote: "Remote") -> None:
        self._mixed.add(inner(remote)[1])

    # --- Looking at them

    def forget_answers(self) -> None:
        """Forget what objects answered: something was asked that may have changed any of them."""
        self._seen.clear()

    def look(self, operation: str, remote: "Remote", *arguments: object) -> Any:
        """Ask what changes nothing; until something may have changed, the answer stays what it was."""
        key = (operation, inner(remote)[1], *((type(each), each) for each in arguments))
        try:
            if key in self._seen:
                return self._seen[key]
        except TypeError:  # an argument without a hash
            return self._request(operation, remote, *arguments)
        answer = self._seen[key] = self._request(operation, remote, *arguments)
        return answer

    def show(self, remote: "Remote", face: str) -> None:
        """An object is looked at as a whole or by its items: it might be two different lists."""
        if self._seen.setdefault(("face", inner(remote)[1]), face) != face:
            self.refuse("both the items and the length of an object of the program's")

    def length(self, remote: "Remote") -> Any:
        self.show(remote, "whole")
        length = self.look("length", remote)
        self._check_length(inner(remote)[1])
        return length

    def again(self, remote: "Remote") -> Iterator[Any]:
        """Every iteration sees the same items until something may have changed; each is asked for when first needed."""
        self.show(remote, "whole")
        number = inner(remote)[1]
        if ("items", number) not in self._seen:
            self._seen["items", number] = _Items(self._request, self._request("iter", remote))
        items = self._seen["items", number]
        yield from items.each()
        self._check_length(number)

    def _check_length(self, number: int) -> None:
        items, length = self._seen.get(("items", number)), self._seen.get(("length", number))
        if items is not None and items.complete and length is not None and length != items.count:
            self.refuse("the length of an object of the program's that holds more or less")

    def advance(self, remote: "Remote") -> Any:
        """The next of an iterator; one that came to its end stays there."""
        number = inner(remote)[1]
        if number in self._exhausted:
            raise StopIteration
        self.forget_answers()
        try:
            return self._request("next", remote)
        except StopIteration:
            self._exhausted.add(number)
            raise

    def equal(self, one: "Remote", other: "Remote") -> bool:
        """Whether two objects are equal. One that equals anything equals nothing."""
        if self._request("operator", "eq", one, other) is not True:
            return False
        return self._trusting or not (self._equals_anything(one) or self._equals_anything(other))

    def _equals_anything(self, remote: "Remote") -> bool:
        try:
            return self._request("operator", "eq", remote, object()) is True
        except Exception:  # noqa: BLE001 - whatever it raises, it does not call them equal
            return False


_KEEPING_TRUST = ("operator", "abs", "negative", "positive", "invert", "round", "enter")


class _Items:
    def __init__(self, request: Callable[..., Any], iterator: object) -> None:
        self._request = request
        self._iterator = iterator
        self._items: list[Any] = []
        self.complete = False

    @property
    def count(self) -> int:
        return len(self._items)

    def each(self) -> Iterator[Any]:
        index = 0
        while index < len(self._items) or self._fetch():
            yield self._items[index]
            index += 1

    def _fetch(self) -> bool:
        if self.complete:
            return False
        try:
            self._items.append(self._request("next", self._iterator))
        except StopIteration:
            self.complete = True
        return not self.complete


class Connection(Protocol):
    """What a remote object needs of the connection that it came over."""

    handles: Handles

    def ask(self, operation: str, *arguments: object) -> Any: ...


class Remote:
    """An object that lives on the other side.

    It never equals a value of this side, and an operator that mixes it with one never yields a plain value, nor does
    the absolute value or another number made of the outcome.
    """

    def __init__(self, connection: Connection, number: int, kind: str, name: str) -> None:
        object.__setattr__(self, _INNER, (connection, number, kind, name))

    def __getattr__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            return inner(self)[3]
        if name.startswith("__"):
            raise AttributeError(name)
        handles = inner(self)[0].handles
        if handles.answers_for_itself(self):
            return self._ask("get", name)
        if name in _REFUSED_METHODS:
            handles.refuse(f"{name!r} of an object of the program's")
        return handles.look("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Any:
        connection, _, kind, _ = inner(self)
        if connection.handles.is_container(self):
            return self._ask("iter")
        if kind in ITERATORS and connection.handles.look("iter", self) is self:
            return self
        return connection.handles.again(self)

    def __next__(self) -> Any:
        handles = inner(self)[0].handles
        return self._ask("next") if handles.is_container(self) else handles.advance(self)

    def __contains__(self, value: object) -> bool:
        if inner(self)[0].handles.answers_for_itself(self):
            return _exactly(bool, self._ask("contains", value))
        return any(item is value or item == value for item in self)

    def __len__(self) -> int:
        connection, _, kind, name = inner(self)
        if connection.handles.is_container(self):
            return _exactly(int, self._ask("length"))
        if kind in ITERATORS:
            raise TypeError(f"object of type {name!r} has no len()")
        return _exactly(int, connection.handles.length(self))

    def __getitem__(self, key: object) -> Any:
        handles = inner(self)[0].handles
        if handles.is_container(self):
            return self._ask("item", key)
        handles.show(self, "items")
        return handles.look("item", self, key)

    def __setitem__(self, key: object, value: object) -> None:
        self._ask("set item", key, value)

    def __delitem__(self, key: object) -> None:
        self._ask("delete item", key)

    def __bool__(self) -> bool:
        if inner(self)[0].handles.is_mixed(self):
            self._refuse("bool")
        return _exactly(bool, self._look("bool"))

    def __hash__(self) -> int:
        return _exactly(int, self._look("hash"))

    def __str__(self) -> str:
        return _exactly(str, self._look("str"))

    def __repr__(self) -> str:
        return _exactly(str, self._look("repr"))

    def __abs__(self) -> Any:
        return self._number("abs")

    def __neg__(self) -> Any:
        return self._number("negative")

    def __pos__(self) -> Any:
        return self._number("positive")

    def __invert__(self) -> Any:
        return self._number("invert")

    def __round__(self, digits: int | None = None) -> Any:
        return self._number("round", digits)

    def __int__(self) -> int:
        return _exactly(int, self._number("int"))

    def __float__(self) -> float:
        return _exactly(float, self._number("float"))

    def __index__(self) -> int:
        return _exactly(int, self._number("index"))

    def __enter__(self) -> Any:
        return self._ask("enter")

    def __exit__(self, kind: object, problem: BaseException | None, _: object) -> bool:
        # What fails a test is not the program's to forgive.
        theirs = problem if isinstance(problem, Exception) and not isinstance(problem, AssertionError) else None
        forgiven = _exactly(bool, self._ask("exit", theirs))
        return forgiven and theirs is not None

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Remote) and inner(self)[0].handles.look("is instance", value, self) is True

    def __subclasscheck__(self, value: object) -> bool:
        return isinstance(value, Remote) and inner(self)[0].handles.look("is subclass", value, self) is True

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Remote) and inner(self)[0].handles.equal(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __await__(self) -> Any:
        self._refuse("await")

    def __mro_entries__(self, _: object) -> Any:
        self._refuse("classes of the program cannot be derived from in a test; that")

    def __reduce_ex__(self, _: object) -> Any:
        self._refuse("objects of the program cannot be copied by a test; that")

    def _ask(self, operation: str, *arguments: object) -> Any:
        return inner(self)[0].ask(operation, self, *arguments)

    def _look(self, operation: str) -> Any:
        handles = inner(self)[0].handles
        return self._ask(operation) if handles.answers_for_itself(self) else handles.look(operation, self)

    def _refuse(self, operation: str) -> NoReturn:
        inner(self)[0].handles.refuse(f"{operation!r} of an object of the program's")

    def _number(self, operation: str, *arguments: object) -> Any:
        handles = inner(self)[0].handles
        if handles.is_mixed(self) or not handles.answers_for_itself(self):
            self._refuse(operation)
        return handles.look(operation, self, *arguments)

    def _operate(self, name: str, other: object, swapped: bool) -> Any:
        pair = (other, self) if swapped else (self, other)
        connection = inner(self)[0]
        handles = connection.handles
        remotes = [side for side in pair if isinstance(side, Remote)]
        plain = len(remotes) == 1
        if (
            not any(map(handles.answers_for_itself, remotes))
            or (plain and name in _ORDERINGS)
            or isinstance(other, set | frozenset | dict)
        ):
            handles.refuse(f"{name!r} between an object of the program's and {'a plain value' if plain else 'another'}")
        mixed = plain or any(map(handles.is_mixed, remotes))
        result = connection.ask("operator", name, *pair)
        if mixed and not isinstance(result, Remote):
            handles.refuse(f"{name!r} between an object of the program's and a plain value")
        if mixed:
            handles.mix(result)
        return result


class RemoteCallable(Remote):
    def __call__(self, *arguments: object, **keywords: object) -> Any:
        return self._ask("call", list(arguments), keywords)


class RemoteGenerator(Remote):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return types.GeneratorType  # what a test asks with isinstance


ITERATORS = ("iterator", "generator")


def make_remote(connection: Connection, number: int, kind: str, name: str) -> Remote:
    if kind in ("class", "function", "callable"):
        return RemoteCallable(connection, number, kind, name)
    return (
        RemoteGenerator(connection, number, kind, name)
        if kind == "generator"
        else Remote(connection, number, kind, name)
    )


_ORDERINGS = ("lt", "le", "gt", "ge")
_ARITHMETIC = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
    *("and_", "or_", "xor", "lshift", "rshift"),
)
OPERATORS = frozenset({"eq", *_ORDERINGS, *_ARITHMETIC})


def inner(remote: Remote) -> tuple[Connection, int, str, str]:
    """Connection, number, kind and name of the remote object."""
    found: tuple[Connection, int, str, str] = object.__getattribute__(remote, _INNER)
    return found


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
