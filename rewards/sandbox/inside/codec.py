"""Python values as JSON, by exact type: how a test and the program under test talk to each other.

What arrives is built from the exact builtin types and a few of the standard library's; it never carries behaviour of the
sender's. Whatever else a value is (a function, an instance of a class of the program's, a subclass that compares in its
own way) stays where it is and travels as a handle. Nothing is unpickled or evaluated.
"""

import array
import builtins
import collections
import datetime
import math
import operator
import types
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Union

from rewards.sandbox.inside import arrays

Packed = Any
"""None, bool, str, float, int below 2^63, or a list `[tag, …]`."""

_SMALL = 1 << 63
_NAMED: dict[str, object] = {
    f"{module.__name__}.{name}": value
    for module in (builtins, math, operator)
    for name, value in vars(module).items()
    if not name.startswith("_")
    and (isinstance(value, type) or module is not builtins)
    and name not in ("attrgetter", "methodcaller", "call", "type", "super")
}
"""Types and functions that both sides have, known by name. Functions of `builtins` are left out, since some see the
caller, and so is what reaches into objects or makes classes: a test may call what the program returned."""
_NAMES = {id(value): name for name, value in _NAMED.items()}
MODULES = ("math", "cmath", "operator", "collections", "itertools", "functools", "re", "string", "random", "datetime")
_COMPARED_BY_CONTENT = (int, float, str, bytes, tuple, list, dict, set, frozenset)
_VIEWS = {type({}.keys()): "K", type({}.values()): "V", type({}.items()): "I"}

Container = Union[list[Any], dict[Any, Any], set[Any], bytearray, collections.deque[Any], "array.array[Any]"]


class Shared:
    """The mutable containers that crossed during one call, by a number that both sides know them by."""

    def __init__(self) -> None:
        self.by_key: dict[int, Container] = {}
        self._keys: dict[int, int] = {}

    def key_of(self, container: Container) -> int | None:
        return self._keys.get(id(container))

    def add(self, container: Container, key: int | None = None) -> int:
        key = len(self.by_key) if key is None else key
        self.by_key[key] = container  # held here, so that its id stays its own
        self._keys[id(container)] = key
        return key


class Codec:
    """`export(value)` gives the tail of a handle for what cannot travel; `imported(tail)` makes something of one."""

    def __init__(self, export: Callable[[object], list[Any]], imported: Callable[[list[Any]], object]) -> None:
        self._export = export
        self._imported = imported
        self._records: dict[tuple[str, ...], Any] = {}

    # --- Out

    def pack(self, value: object, shared: Shared) -> Packed:
        value = arrays.plain(value)
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else ["i", hex(value)]  # type: ignore[operator,arg-type]
        if kind is tuple:
            return ["t", self._pack_all(value, shared)]
        if kind in _TAGS:
            return self._pack_container(value, shared)  # type: ignore[arg-type]
        simple = self._pack_simple(value, kind, shared)
        if simple is not None:
            return simple
        array = arrays.pack(value)
        if array is not None:
            return ["a", *array]
        for base in _COMPARED_BY_CONTENT:
            # By the base's own methods: what the subclass makes of them plays no part.
            if isinstance(value, base) and kind.__eq__ is base.__eq__ and kind.__ne__ is base.__ne__:
                return self._pack_subclass(value, base, shared)
        return ["h", *self._export(value)]

    def content(self, container: Container, shared: Shared) -> list[Any]:
        """What a container holds now; containers in it that crossed before appear as their numbers."""
        if isinstance(container, bytearray):
            return [bytes(container).hex()]
        if isinstance(container, dict):
            pairs = [[self.pack(k, shared), self.pack(v, shared)] for k, v in container.items()]
            factory = container.default_factory if isinstance(container, collections.defaultdict) else None
            return [pairs, self.pack(factory, shared)]
        extra: int | str | None = container.maxlen if isinstance(container, collections.deque) else None
        extra = container.typecode if isinstance(container, array.array) else extra
        return [self._pack_all(container, shared), extra]

    def _pack_all(self, values: Any, shared: Shared) -> list[Packed]:
        return [self.pack(value, shared) for value in values]

    def _pack_container(self, container: Container, shared: Shared) -> Packed:
        known = shared.key_of(container)
        if known is not None:
            return ["k", known]
        key = shared.add(container)
        return [_TAGS[type(container)], key, *self.content(container, shared)]

    def _pack_simple(self, value: Any, kind: type, shared: Shared) -> Packed | None:
        if kind is frozenset:
            return ["f", self._pack_all(value, shared)]
        if kind is bytes:
            return ["b", value.hex()]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is range:
            return ["r", *(self.pack(part, shared) for part in (value.start, value.stop, value.step))]
        if kind is slice:
            return ["S", *(self.pack(part, shared) for part in (value.start, value.stop, value.step))]
        if kind is Fraction:
            return ["F", hex(value.numerator), hex(value.denominator)]
        if kind is Decimal:
            return ["m", str(value)]
        if kind in (datetime.date, datetime.datetime, datetime.time) and getattr(value, "tzinfo", None) is None:
            return ["dt", kind.__name__, value.isoformat()]
        if kind is datetime.timedelta:
            return ["td", value.days, value.seconds, value.microseconds]
        if kind in _VIEWS:
            return [_VIEWS[kind], self._pack_all(value, shared)]
        if value is Ellipsis or value is NotImplemented:
            return ["!", repr(value)]
        if _NAMED.get(_NAMES.get(id(value), "")) is value:
            return ["N", _NAMES[id(value)]]
        if kind is types.ModuleType and value.__name__ in MODULES:
            return ["M", value.__name__]
        return None

    def _pack_subclass(self, value: Any, base: type, shared: Shared) -> Packed:
        if base is int:
            return self.pack(int.__index__(value), shared)
        if base is float:
            return float.__float__(value)
        if base is str:
            return str.__str__(value)
        if base is tuple and isinstance(getattr(value, "_fields", None), tuple):
            return ["n", type(value).__name__, list(value._fields), self._pack_all(tuple.__iter__(value), shared)]
        if base is dict:
            return self._pack_container(dict(dict.items(value)), shared)
        return self.pack(base(base.__iter__(value)), shared)  # type: ignore[attr-defined]

    # --- In

    def unpack(self, data: Packed, shared: Shared) -> Any:
        """Raises ValueError, TypeError, KeyError, IndexError or ArithmeticError on what `pack` would not have written."""
        if not isinstance(data, list):
            return data
        tag = data[0]
        if tag in _MAKERS:
            container = _MAKERS[tag](data)
            shared.add(container, data[1])
            return self.refill(container, data[2:], shared)
        return getattr(self, f"_in_{_IN[tag]}")(data, shared)

    def refill(self, container: Any, content: list[Any], shared: Shared) -> Any:
        """Give a container the content that the other side says it has."""
        if isinstance(container, bytearray):
            container[:] = bytes.fromhex(content[0])
            return container
        if isinstance(container, dict):
            pairs = [(self.unpack(k, shared), self.unpack(v, shared)) for k, v in content[0]]
            container.clear()
            for key, value in pairs:
                container[key] = value
            if isinstance(container, collections.defaultdict):
                container.default_factory = self.unpack(content[1], shared)
            return container
        values = [self.unpack(item, shared) for item in content[0]]
        if isinstance(container, array.array):
            container[:] = array.array(container.typecode, values)
            return container
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(values)
        return container

    def _all(self, items: list[Packed], shared: Shared) -> list[Any]:
        return [self.unpack(item, shared) for item in items]

    def _in_known(self, data: Packed, shared: Shared) -> Any:
        return shared.by_key[data[1]]

    def _in_handle(self, data: Packed, _: Shared) -> Any:
        return self._imported(data[1:])

    def _in_integer(self, data: Packed, _: Shared) -> Any:
        return int(data[1], 16)

    def _in_tuple(self, data: Packed, shared: Shared) -> Any:
        return tuple(self._all(data[1], shared))

    def _in_frozenset(self, data: Packed, shared: Shared) -> Any:
        return frozenset(self._all(data[1], shared))

    def _in_bytes(self, data: Packed, _: Shared) -> Any:
        return bytes.fromhex(data[1])

    def _in_complex(self, data: Packed, _: Shared) -> Any:
        return complex(data[1], data[2])

    def _in_range(self, data: Packed, shared: Shared) -> Any:
        return range(*self._all(data[1:], shared))

    def _in_slice(self, data: Packed, shared: Shared) -> Any:
        return slice(*self._all(data[1:], shared))

    def _in_fraction(self, data: Packed, _: Shared) -> Any:
        return Fraction(int(data[1], 16), int(data[2], 16))

    def _in_decimal(self, data: Packed, _: Shared) -> Any:
        return Decimal(data[1])

    def _in_array(self, data: Packed, _: Shared) -> Any:
        return arrays.unpack(*data[1:])

    def _in_date(self, data: Packed, _: Shared) -> Any:
        kinds: dict[str, Any] = {"date": datetime.date, "datetime": datetime.datetime, "time": datetime.time}
        return kinds[data[1]].fromisoformat(data[2])

    def _in_duration(self, data: Packed, _: Shared) -> Any:
        return datetime.timedelta(*data[1:])

    def _in_keys(self, data: Packed, shared: Shared) -> Any:
        return dict.fromkeys(self._all(data[1], shared)).keys()

    def _in_values(self, data: Packed, shared: Shared) -> Any:
        return dict(enumerate(self._all(data[1], shared))).values()

    def _in_items(self, data: Packed, shared: Shared) -> Any:
        return dict(self._all(data[1], shared)).items()

    def _in_singleton(self, data: Packed, _: Shared) -> Any:
        return {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}[data[1]]

    def _in_named(self, data: Packed, _: Shared) -> Any:
        return _NAMED[data[1]]

    def _in_module(self, data: Packed, _: Shared) -> Any:
        if data[1] not in MODULES:
            raise ValueError(f"module {data[1]!r}")
        return __import__(data[1])

    def _in_record(self, data: Packed, shared: Shared) -> Any:
        name, fields = data[1], tuple(data[2])
        if (name, *fields) not in self._records:
            self._records[(name, *fields)] = collections.namedtuple(name, fields)
        return self._records[(name, *fields)](*self._all(data[3], shared))


_TAGS: dict[type, str] = {
    list: "l",
    dict: "d",
    set: "s",
    bytearray: "B",
    collections.deque: "q",
    collections.Counter: "C",
    collections.OrderedDict: "O",
    collections.defaultdict: "D",
    array.array: "A",
}
_MAKERS: dict[str, Callable[[list[Any]], Any]] = {tag: lambda _, kind=kind: kind() for kind, tag in _TAGS.items()} | {
    "q": lambda data: collections.deque(maxlen=data[3]),
    "A": lambda data: array.array(data[3]),
}
_IN = {
    "k": "known",
    "h": "handle",
    "i": "integer",
    "t": "tuple",
    "f": "frozenset",
    "b": "bytes",
    "c": "complex",
    "r": "range",
    "S": "slice",
    "F": "fraction",
    "m": "decimal",
    "a": "array",
    "dt": "date",
    "td": "duration",
    "K": "keys",
    "V": "values",
    "I": "items",
    "!": "singleton",
    "N": "named",
    "M": "module",
    "n": "record",
}
