"""What our own source does with a library, compared with the library's source.

A reader goes through one of our modules and follows what it can: names that are imported, what a call returns by its
annotation, attributes, loops, `await`. What it cannot follow it leaves alone; SEEDS name what comes in untyped.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from pathlib import Path

from tests.contracts.library import Call, Found, Function, Library, Member, statements


@dataclass(frozen=True)
class Instance:
    """A value of a class."""

    kind: Found


@dataclass(frozen=True)
class Typed:
    """A value of a type that is more than a class, such as `list[int]`."""

    module: str
    annotation: ast.expr


@dataclass(frozen=True)
class Bound:
    """An attribute of a class or instance."""

    member: Member
    kind: Found
    on_class: bool


@dataclass(frozen=True)
class Ours:
    """An instance of a class of our own that inherits nothing from the library."""

    kind: ast.ClassDef


Value = Found | Instance | Typed | Bound | Ours | None
ELEMENTS = ("list", "tuple", "Sequence", "Iterable", "Iterator", "AsyncGenerator", "AsyncIterator", "set", "Collection")


@dataclass
class Reader(ast.NodeVisitor):
    """Reads one module of ours."""

    library: Library
    path: str
    """Place of the module, for messages."""
    seeds: Mapping[str, Found]
    """Name of a variable or attribute that nothing says the type of → its class."""
    problems: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    """Definitions of the library that were compared, with the number of places."""

    def read(self, tree: ast.Module) -> None:
        self._imports: dict[str, Found] = {}
        self._functions = {node.name: node for node in tree.body if isinstance(node, Function)}
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._values: list[dict[str, Value]] = [{}]
        self._attributes: dict[str, Value] = {}
        self._body: list[ast.AST] = [tree]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        if self._imports:
            self._checks = False
            self.visit(tree)  # what attributes of `self` are is said in other methods than those that use them
            self._checks = True
            self.visit(tree)

    # --- What is walked through

    def visit_FunctionDef(self, node: Function) -> None:
        self._values.append({})
        self._body.append(node)
        self.generic_visit(node)
        self._body.pop()
        self._values.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if self._checks:
            for base in node.bases:
                above = self.value(base)
                if isinstance(above, Found) and isinstance(above.node, ast.ClassDef):
                    self._subclass(node, above)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._bind(target, value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        self._bind(node.target, self._element(self.value(node.iter)))
        self.generic_visit(node)

    visit_AsyncFor = visit_For
    visit_comprehension = visit_For

    def visit_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp) -> None:
        for each in node.generators:
            self.visit(each)
        self.visit(node.elt)

    visit_ListComp = visit_GeneratorExp
    visit_SetComp = visit_GeneratorExp

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._checks:
            self._has(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if self._checks:
            self._fits(node)
        self.generic_visit(node)

    # --- What an expression is

    def value(self, node: ast.expr) -> Value:
        """What an expression of ours is, as far as it can be followed."""
        match node:
            case ast.Name(id=name):
                known = next((scope[name] for scope in reversed(self._values) if scope.get(name)), None)
                return known or self._imports.get(name) or self._seed(name)
            case ast.Await(value=inner):
                return self.value(inner)
            case ast.Subscript(value=inner):
                outer = self.value(inner)
                return outer if isinstance(outer, Found) else self._element(outer)
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in self._attributes or name in self.seeds:
                return self._attributes.get(name) or self._seed(name)
            case ast.Attribute(value=inner, attr=name):
                return self._attribute(self.value(inner), name)
            case ast.Call(func=ast.Name(id="type"), args=[inner]):
                made = self._plain(self.value(inner))
                return made.kind if isinstance(made, Instance) else None
            case ast.Call(func=ast.Name(id=name)) if name in self._classes:
                kind = self._classes[name]
                return None if any(self.value(base) for base in kind.bases) else Ours(kind)
            case ast.Call(func=function):
                return self._returned(self.value(function))
        return None

    def _attribute(self, outer: Value, name: str) -> Value:
        outer = self._plain(outer)
        if isinstance(outer, Found):
            if isinstance(outer.node, ast.Module):
                found = self.library.lookup(outer.module, name)
                return self._assigned(found)
            if isinstance(outer.node, ast.ClassDef) and (member := self.library.member(outer, name)):
                return Bound(member, outer, on_class=True)
        if isinstance(outer, Instance) and (member := self.library.member(outer.kind, name)):
            return Bound(member, outer.kind, on_class=False)
        return None

    def _plain(self, value: Value) -> Value:
        """An attribute that is no method by its type; a type that is a class as an instance of it."""
        if isinstance(value, Bound) and not value.member.is_method:
            node = value.member.node
            annotation = node.returns if isinstance(node, Function) else getattr(node, "annotation", None)
            value = self._typed(value.member.owner.module, annotation, value.kind)
        return value

    def _assigned(self, found: Found | None) -> Value:
        """A module's variable by its annotation."""
        if found is not None and isinstance(found.node, ast.AnnAssign):
            return self._typed(found.module, found.node.annotation, found)
        return found

    def _typed(self, module: str, annotation: ast.expr | None, owner: Found) -> Value:
        if annotation is None:
            return None
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if isinstance(annotation, ast.BinOp):
            sides = [each for each in (annotation.left, annotation.right) if ast.unparse(each) != "None"]
            return self._typed(module, sides[0], owner) if len(sides) == 1 else None
        if isinstance(annotation, ast.Name) and annotation.id == "Self":
            return Instance(owner)
        found = self.library.resolve(module, annotation)
        if found is not None and isinstance(found.node, ast.ClassDef):
            return Instance(found)
        return Typed(module, annotation)

    def _returned(self, function: Value) -> Value:
        if isinstance(function, Bound) and isinstance(function.member.node, Function):
            return self._typed(function.member.owner.module, function.member.node.returns, function.kind)
        if isinstance(function, Found):
            if isinstance(function.node, ast.ClassDef):
                return Instance(function)
            if isinstance(function.node, Function):
                return self._typed(function.module, function.node.returns, function)
        return None

    def _element(self, value: Value) -> Value:
        value = self._plain(value)
        if isinstance(value, Typed) and isinstance(value.annotation, ast.Subscript):
            kind, inner = value.annotation.value, value.annotation.slice
            if ast.unparse(kind).rpartition(".")[2] in ELEMENTS:
                first = inner.elts[0] if isinstance(inner, ast.Tuple) else inner
                return self._typed(value.module, first, Found(value.module, kind))
        return None

    def _seed(self, name: str) -> Value:
        return Instance(self.seeds[name]) if name in self.seeds else None

    def _bind(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self._values[-1][target.id] = value
        elif isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" and value is not None:
            self._attributes[target.attr] = value

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            path = alias.name if isinstance(node, ast.Import) else source
            if path.split(".")[0] != self.library.name:
                continue
            if isinstance(node, ast.ImportFrom):
                name, found = f"{source}.{alias.name}", self.library.lookup(source, alias.name)
            else:
                name, found = path, self.library.module(path)
            if found is None:
                self._problem(node, f"{name} is not there")
                continue
            self.seen[name] += 1
            if isinstance(node, ast.Import) and alias.asname is None:
                self._imports[self.library.name] = self.library.find(self.library.name)
            elif (value := self._assigned(found)) is not None:
                self._imports[alias.asname or alias.name] = value

    # --- What is compared

    def _problem(self, node: ast.AST, what: str) -> None:
        self.problems.append(f"{self.path}:{getattr(node, 'lineno', 0)}: {what}")

    def _has(self, node: ast.Attribute) -> None:
        """The attribute is there."""
        outer = self._plain(self.value(node.value))
        kind = outer.kind if isinstance(outer, Instance) else outer
        if not isinstance(kind, Found) or isinstance(kind.node, ast.alias):
            return
        if isinstance(kind.node, ast.Module):
            there = self.library.lookup(kind.module, node.attr) is not None
        elif isinstance(kind.node, ast.ClassDef):
            there = self.library.member(kind, node.attr) is not None or not self.library.lineage(kind)[1]
        else:
            return
        self.seen[f"{kind.name}.{node.attr}"] += 1
        if not there:
            self._problem(node, f"{kind.name} has no {node.attr}")

    def _fits(self, node: ast.Call) -> None:
        """The call's arguments are those that the function takes, and values that are written out are among its own."""
        function = self.value(node.func)
        call: Call | None = None
        name = ast.unparse(node.func)
        if isinstance(function, Bound):
            call = self.library.method(function.member, on_class=function.on_class)
            name = f"{function.kind.name}.{name.rpartition('.')[2]}"
        elif isinstance(function, Found):
            call, name = self.library.called(function), function.name
        elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "super()":
            return
        if call is None:
            return
        self.seen[name] += 1
        keywords, whole = self._keywords(node)
        places = [each for each in node.args if not isinstance(each, ast.Starred)]
        whole &= len(places) == len(node.args)
        bind = call.signature.bind if whole else call.signature.bind_partial
        try:
            given = bind(*places, **keywords).arguments
        except TypeError as problem:
            self._problem(node, f"{name}{shown(call)}: {problem}")
            return
        for parameter, argument in given.items():
            self._allowed(node, f"{name}({parameter}=…)", argument, call, parameter)

    def _allowed(self, node: ast.Call, name: str, argument: object, call: Call, parameter: str) -> None:
        made = self.value(argument) if isinstance(argument, ast.expr) else None
        wanted = call.annotations.get(parameter)
        expected = self._typed(call.module, wanted, Found(call.module, node)) if isinstance(made, Ours) else None
        if isinstance(made, Ours) and isinstance(expected, Instance):
            self._stands_in(made.kind, expected.kind)
        allowed = self.library.literals(call.module, wanted)
        sides = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
        for side in sides:
            if allowed is not None and isinstance(side, ast.Constant) and side.value not in allowed:
                self._problem(node, f"{name} is one of {sorted(map(str, allowed))}, not {side.value!r}")

    def _keywords(self, node: ast.Call) -> tuple[dict[str, ast.expr], bool]:
        """Arguments by name, those of `**` included as far as they are written out; whether these are all."""
        keywords, whole = {}, True
        for each in node.keywords:
            if each.arg:
                keywords[each.arg] = each.value
            else:
                whole = False
                keywords |= dict(self._written(each.value))
        return keywords, whole

    def _written(self, node: ast.expr, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, ast.expr]]:
        """Keys and values of a dict that our source writes out: here, in a variable, or as what a function returns."""
        parts: list[ast.expr] = []
        match node:
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant):
                        yield str(key.value), value
                parts = [value for key, value in zip(keys, values, strict=True) if key is None]
            case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, right=other):
                parts = [one, other]
            case ast.Name(id=name) if name not in seen:
                seen |= {name}
                for target, value in _assignments(self._body[-1]):
                    if ast.unparse(target) == name:
                        parts.append(value)
                    elif isinstance(target, ast.Subscript) and ast.unparse(target.value) == name:
                        yield str(getattr(target.slice, "value", "")), value
            case ast.Call(func=ast.Name(id=name)) if name in self._functions and f"{name}()" not in seen:
                seen = frozenset({f"{name}()"})  # its variables are others
                self._body.append(self._functions[name])
                for each in ast.walk(self._functions[name]):
                    if isinstance(each, ast.Return) and each.value is not None:
                        yield from self._written(each.value, seen)
                self._body.pop()
        for part in parts:
            yield from self._written(part, seen)

    def _subclass(self, node: ast.ClassDef, above: Found) -> None:
        """A class of ours keeps what callers of the library's own expect."""
        own = {each.name: each for each in node.body if isinstance(each, Function)}
        given = own.keys() | {name for each in node.body for name in _targets(each)}
        for name in sorted(self.library.abstract(above) - given):
            self._problem(node, f"{node.name} does not define {name} of {above.name}")
        self.seen[f"{above.name} (subclass)"] += 1
        for name, mine in own.items():
            theirs = self.library.member(above, name)
            if theirs is not None and isinstance(theirs.node, Function) and name != "__init__":
                self.seen[f"{above.name}.{name} (override)"] += 1
                self._override(mine, theirs, f"{node.name}.{name}")
        self._inherited(node, own, above)

    def _stands_in(self, mine: ast.ClassDef, theirs: Found) -> None:
        """A class of ours that is passed for one of the library's has all that others may use of it."""
        line, _ = self.library.lineage(theirs)
        own = {each.name: each for each in mine.body if isinstance(each, Function)}
        self.seen[f"{theirs.name} (stand-in)"] += 1
        for name in sorted(
            {each.name for owner in line for each in statements(owner.node) if isinstance(each, Function)}
        ):
            member = self.library.member(theirs, name)
            if name.startswith("_") or member is None:
                continue
            if name in own:
                self._override(own[name], member, f"{mine.name}.{name}")
            else:
                self._problem(mine, f"{mine.name} stands for {theirs.name} and has no {name}")

    def _override(self, mine: Function, theirs: Member, name: str) -> None:
        ours = Member(theirs.owner, mine)
        if ours.is_method != theirs.is_method:
            self._problem(mine, f"{name} is a method on one side and a property on the other")
        if type(mine) is not type(theirs.node):
            self._problem(mine, f"{name} is async on one side only")
        call, takes = (self.library.method(each, on_class=False) for each in (theirs, ours))
        assert call is not None
        assert takes is not None
        places = [
            each.name for each in call.signature.parameters.values() if each.kind is Parameter.POSITIONAL_OR_KEYWORD
        ]
        named = {each.name: each for each in call.signature.parameters.values() if each.kind is Parameter.KEYWORD_ONLY}
        for positional, rest in ((places, {}), ([], dict.fromkeys(places))):
            try:
                takes.signature.bind(*positional, **rest, **dict.fromkeys(named))
            except TypeError as problem:
                self._problem(mine, f"{name}{takes.signature} is called as {call.signature}: {problem}")
                return

    def _inherited(self, node: ast.ClassDef, own: Mapping[str, Function], above: Found) -> None:
        """What our methods use of `self` and `super()` and do not define is in the library's class."""
        whole = self.library.lineage(above)[1]
        mine = own.keys() | {name for each in ast.walk(node) for name in _targets(each)}
        for each in ast.walk(node):
            if not isinstance(each, ast.Attribute):
                continue
            of = ast.unparse(each.value)
            if of not in ("self", "super()") or (of == "self" and each.attr in mine):
                continue
            member = self.library.member(above, each.attr)
            self.seen[f"{above.name}.{each.attr}"] += 1
            if member is None and whole:
                self._problem(each, f"{node.name} uses {of}.{each.attr}, which {above.name} has not")
        for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("self", "super()"):
                member = (
                    self.library.member(above, call.func.attr)
                    if call.func.attr not in own or (ast.unparse(call.func.value) == "super()")
                    else None
                )
                if member is not None and member.is_method:
                    self._bind_inherited(call, member, above)

    def _bind_inherited(self, node: ast.Call, member: Member, above: Found) -> None:
        call = self.library.method(member, on_class=False)
        keywords, whole = self._keywords(node)
        if call is None or not whole or any(isinstance(each, ast.Starred) for each in node.args):
            return
        try:
            call.signature.bind(*node.args, **keywords)
        except TypeError as problem:
            self._problem(node, f"{above.name}.{ast.unparse(node.func)}{shown(call)}: {problem}")


def shown(call: Call) -> str:
    """A signature for a message; that of a record of hundred fields says nothing."""
    text = str(call.signature)
    return text if len(text) < 300 else "(…)"


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of every assignment in it."""
    for each in ast.walk(node):
        if isinstance(each, ast.Assign):
            yield from ((target, each.value) for target in each.targets)
        elif isinstance(each, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and each.value is not None:
            yield each.target, each.value


def _targets(node: ast.AST) -> Iterator[str]:
    """Names, and attributes of `self`, that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        for each in ast.walk(target) if target is not None else ():
            if isinstance(each, ast.Name):
                yield each.id
            elif isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self":
                yield each.attr


def read(library: Library, root: Path, path: Path, seeds: Mapping[str, Found]) -> Reader:
    """What one file of ours does with a library."""
    reader = Reader(library, str(path.relative_to(root)), seeds)
    reader.read(ast.parse(path.read_text(encoding="utf-8")))
    return reader
