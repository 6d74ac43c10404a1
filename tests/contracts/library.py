"""A library as its source says: what its names are and how they are called. Nothing of it is imported, so that what is only
installed on other hosts can be read too."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

CLOSED = {"ABC", "Generic", "Protocol", "TypedDict", "Struct", "Enum", "IntEnum", "NamedTuple", "Exception", "object"}
"""Bases from outside the library that bring no attributes that anybody here asks for."""


@dataclass(frozen=True)
class Found:
    """A definition: a module, class, function or assignment; an `ast.alias` where it comes from another library."""

    module: str
    """Where it stands."""
    node: ast.AST

    @property
    def name(self) -> str:
        own = getattr(self.node, "name", "")
        return f"{self.module}.{own}" if own else self.module


@dataclass(frozen=True)
class Member:
    """An attribute of a class."""

    owner: Found
    node: ast.AST

    @property
    def decorators(self) -> set[str]:
        return {_last(each) for each in getattr(self.node, "decorator_list", ())}

    @property
    def is_method(self) -> bool:
        return isinstance(self.node, Function) and not self.decorators & {"property", "cached_property"}


@dataclass(frozen=True)
class Call:
    """How something is called."""

    signature: Signature
    annotations: dict[str, ast.expr]
    """Parameter → its type, to be read in `module`."""
    module: str


class Library:
    """The source of one library."""

    def __init__(self, name: str, folder: Path) -> None:
        """`folder`: holds the package, or module, of this name."""
        self.name = name
        self._folder = folder
        self._trees: dict[str, ast.Module | None] = {}
        self._packages: set[str] = set()

    def module(self, name: str) -> Found | None:
        tree = self._tree(name)
        return None if tree is None else Found(name, tree)

    def find(self, path: str) -> Found:
        """`module:name`, for tests that name what they mean."""
        module, _, name = path.partition(":")
        found = self.lookup(module, name) if name else self.module(module)
        assert found is not None, f"{self.name} has no {path}"
        return found

    def lookup(self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Found | None:
        """What a name means in a module, followed through its imports; None where the module has no such name."""
        tree = self._tree(module)
        if tree is None or (module, name) in seen:
            return None
        seen |= {(module, name)}
        found: Found | None = None
        for node in statements(tree):
            if isinstance(node, ast.ImportFrom):
                found = self._imported(module, node, name, seen) or found
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if (alias.asname or alias.name.split(".")[0]) == name:
                        whole = alias.name if alias.asname else name
                        found = self.module(whole) or Found(whole, alias)
            elif name in _names(node):
                found = Found(module, node)
            elif _makes(node, name):
                found = found or Found(module, ast.alias(name))
        return found or self.module(f"{module}.{name}")

    def lineage(self, found: Found) -> tuple[list[Found], bool]:
        """A class and those that it inherits from, nearest first; whether none of them is of another library."""
        assert isinstance(found.node, ast.ClassDef)
        line, whole = [found], True
        for base in found.node.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base
            above = self.resolve(found.module, expression)
            if above is not None and isinstance(above.node, ast.ClassDef):
                more, closed = self.lineage(above)
                line += [each for each in more if each not in line]
                whole &= closed
            else:
                whole &= _last(expression) in CLOSED
        return line, whole

    def resolve(self, module: str, expression: ast.expr) -> Found | None:
        """What a dotted name, as it stands in a module, means."""
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            expression = ast.parse(expression.value, mode="eval").body
        if isinstance(expression, ast.Name):
            return self.lookup(module, expression.id)
        if isinstance(expression, ast.Attribute):
            inner = self.resolve(module, expression.value)
            if inner is not None and isinstance(inner.node, ast.Module):
                return self.lookup(inner.module, expression.attr)
        return None

    def member(self, found: Found, name: str) -> Member | None:
        """An attribute of a class or of its instances."""
        line, _ = self.lineage(found)
        for owner in line:
            own = [node for node in statements(owner.node) if name in _names(node) and not _is_setter(node)]
            if own:
                return Member(owner, own[-1])
        for owner in line:
            for node in ast.walk(owner.node):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                if any(isinstance(each, ast.Attribute) and ast.unparse(each) == f"self.{name}" for each in targets):
                    return Member(owner, node)
        return None

    def called(self, found: Found) -> Call | None:
        """How a function or class is called; None where the source does not say."""
        if isinstance(found.node, Function):
            return _call(found.module, found.node, bound=False)
        if not isinstance(found.node, ast.ClassDef):
            return None
        init = self.member(found, "__init__")
        if init is not None and isinstance(init.node, Function):
            return _call(init.owner.module, init.node, bound=True)
        return self._record(found)

    def method(self, member: Member, *, on_class: bool) -> Call | None:
        """How a method is called, on its class or on an instance."""
        if not isinstance(member.node, Function):
            return None
        free = "staticmethod" in member.decorators or (on_class and "classmethod" not in member.decorators)
        return _call(member.owner.module, member.node, bound=not free)

    def abstract(self, found: Found) -> set[str]:
        """Names that a class which is to be used must define."""
        line, _ = self.lineage(found)
        names = {name for owner in line for node in statements(owner.node) for name in _names(node)}
        members = {name: self.member(found, name) for name in names}
        return {name for name, each in members.items() if each is not None and "abstractmethod" in each.decorators}

    def literals(self, module: str, annotation: ast.expr | None) -> set[object] | None:
        """The values that a type allows; None where these are not written out."""
        if isinstance(annotation, ast.BinOp):
            sides = [self.literals(module, side) for side in (annotation.left, annotation.right)]
            return None if None in sides else set().union(*(side for side in sides if side is not None))
        if isinstance(annotation, ast.Constant):
            return {None} if annotation.value is None else None
        if isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Literal":
            return _values(annotation.slice)
        if isinstance(annotation, ast.Name):
            found = self.lookup(module, annotation.id)
            if found is not None and isinstance(found.node, ast.Assign):
                return self.literals(found.module, found.node.value)
        return None

    def _record(self, found: Found) -> Call | None:
        """How a dataclass, msgspec's Struct or TypedDict is made."""
        line, whole = self.lineage(found)
        kinds = {_last(base) for owner in line for base in _class(owner).bases}
        dictionary, struct = "TypedDict" in kinds, "Struct" in kinds
        decorated = any(_is_dataclass(owner) for owner in line)
        if not (dictionary or struct or decorated):
            return Call(Signature(), {}, found.module) if whole else None
        parameters: dict[str, Parameter] = {}
        annotations: dict[str, ast.expr] = {}
        for owner in reversed(line):
            if decorated and not (dictionary or struct or _is_dataclass(owner)):
                continue
            named = dictionary or _says_kw_only(owner)
            total = not any(each.arg == "total" for each in _class(owner).keywords)
            for node in statements(owner.node):
                parameter = _field(node, named, needed=total or not dictionary)
                if parameter is not None and isinstance(node, ast.AnnAssign):
                    parameters[parameter.name] = parameter
                    annotations[parameter.name] = node.annotation
        # Python lets a needed parameter follow one with a default only where it must be named.
        ordered = sorted(parameters.values(), key=lambda each: (each.kind, each.default is not Parameter.empty))
        return Call(Signature(ordered), annotations, found.module)

    def _imported(self, module: str, node: ast.ImportFrom, name: str, seen: frozenset[tuple[str, str]]) -> Found | None:
        source = node.module or ""
        if node.level:
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + (module in self._packages)]
            source = ".".join([*parts, source] if source else parts)
        for alias in node.names:
            if alias.name == "*":
                found = self.lookup(source, name, seen)
            elif (alias.asname or alias.name) == name:
                found = self.lookup(source, alias.name, seen) or self.module(f"{source}.{alias.name}")
                found = found or Found(source, alias)
            else:
                continue
            if found:
                return found
        return None

    def _tree(self, module: str) -> ast.Module | None:
        if module not in self._trees:
            path = self._folder / Path(*module.split("."))
            if (path / "__init__.py").is_file():
                self._packages.add(module)
                path /= "__init__.py"
            else:
                path = path.with_suffix(".py")
            self._trees[module] = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None
        return self._trees[module]


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements of a module or class, also under `if`, `try` and `with`, but not those of what is defined there."""
    for field in ("body", "orelse", "finalbody", "handlers"):
        for child in getattr(node, field, ()):
            yield child
            if isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                yield from statements(child)


def _names(node: ast.AST) -> set[str]:
    """What a statement defines."""
    if isinstance(node, Function | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


def _makes(node: ast.AST, name: str) -> bool:
    """Whether this is a module's `__getattr__` that knows the name."""
    constants = ast.walk(node) if isinstance(node, Function) and node.name == "__getattr__" else ()
    return any(isinstance(each, ast.Constant) and each.value == name for each in constants)


def _call(module: str, node: Function, *, bound: bool) -> Call:
    """`bound`: without the first parameter."""
    arguments = node.args
    places = [*arguments.posonlyargs, *arguments.args]
    free = len(places) - len(arguments.defaults)
    parameters: list[Parameter] = []
    for number, each in enumerate(places):
        kind = Parameter.POSITIONAL_ONLY if number < len(arguments.posonlyargs) else Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(Parameter(each.arg, kind, default=Parameter.empty if number < free else None))
    parameters = parameters[1:] if bound else parameters
    if arguments.vararg:
        parameters.append(Parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL))
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        empty = Parameter.empty if default is None else None
        parameters.append(Parameter(each.arg, Parameter.KEYWORD_ONLY, default=empty))
    if arguments.kwarg:
        parameters.append(Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD))
    everything = [*places, *arguments.kwonlyargs]
    return Call(Signature(parameters), {each.arg: each.annotation for each in everything if each.annotation}, module)


def _field(node: ast.stmt, named: bool, *, needed: bool) -> Parameter | None:
    """The parameter that a field of a record becomes."""
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
        return None
    kind = ast.unparse(node.annotation)
    options: dict[str, str] = {}
    if isinstance(node.value, ast.Call) and _last(node.value.func) in ("field", "Field"):
        options = {each.arg: ast.unparse(each.value) for each in node.value.keywords if each.arg}
    if kind.startswith(("ClassVar", "typing.ClassVar")) or options.get("init") == "False":
        return None
    empty = needed and not kind.startswith(("NotRequired", "typing.NotRequired"))
    if node.value is not None:
        empty = bool(options) and not {"default", "default_factory"} & set(options)
    named = named or options.get("kw_only") == "True"
    place = Parameter.KEYWORD_ONLY if named else Parameter.POSITIONAL_OR_KEYWORD
    return Parameter(node.target.id, place, default=Parameter.empty if empty else None)


def _class(found: Found) -> ast.ClassDef:
    assert isinstance(found.node, ast.ClassDef)
    return found.node


def _is_dataclass(found: Found) -> bool:
    return bool({"dataclass", "config"} & {_last(each) for each in _class(found).decorator_list})


def _says_kw_only(found: Found) -> bool:
    calls = [each.keywords for each in _class(found).decorator_list if isinstance(each, ast.Call)]
    options = [option for keywords in [*calls, _class(found).keywords] for option in keywords]
    return any(option.arg == "kw_only" and ast.unparse(option.value) == "True" for option in options)


def _is_setter(node: ast.AST) -> bool:
    return any(_last(each) in ("setter", "overload") for each in getattr(node, "decorator_list", ()))


def _values(node: ast.expr) -> set[object]:
    """The values between the brackets of `Literal[…]`."""
    return {ast.literal_eval(each) for each in (node.elts if isinstance(node, ast.Tuple) else [node])}


def _last(expression: ast.expr) -> str:
    """The last part of a dotted name, of what is called or subscribed too."""
    if isinstance(expression, ast.Call):
        return _last(expression.func)
    if isinstance(expression, ast.Subscript):
        return _last(expression.value)
    return ast.unparse(expression).rpartition(".")[2]
