"""Names that tests use without defining them: whose they are.

Tests of the usual data sets were written to run in the program's own namespace, and so rely on its imports. A program must
not thereby replace what the tests compare with: `Counter(f(x)) == Counter(y)` asks for that of the standard library.
"""

import ast
import builtins
import collections
import copy
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

from rewards.sandbox.inside.codec import MODULES

_MODULES = (*MODULES, "bisect", "copy", "decimal", "fractions", "heapq", "json", "statistics")
_TOOLS: dict[str, object] = {
    name: getattr(collections, name) for name in ("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple")
} | {"Decimal": Decimal, "Fraction": Fraction, "deepcopy": copy.deepcopy, "isclose": math.isclose}
_ELSEWHERE = {
    "np": "numpy",
    "pd": "pandas",
    **{name: name for name in ("numpy", "pandas", "pytest", "scipy", "sympy", "torch", "sklearn", "tensorflow")},
}
"""Modules that the sandbox has only where the recipe allows them; whatever a program gives that name is not what the tests
mean."""


def find_lacking(trees: Sequence[ast.AST]) -> dict[str, str]:
    """Names in these tests of modules that are not there, and the modules."""
    return {name: module for name, module in _find_elsewhere(trees).items() if find_spec(module) is None}


def _find_elsewhere(trees: Sequence[ast.AST]) -> dict[str, str]:
    """Names in these tests of modules beyond the standard library, and the modules."""
    attributes, others = _uses(trees)
    return {name: _ELSEWHERE[name] for name in attributes.keys() & _ELSEWHERE.keys() - others - _find_bound(trees)}


def find_borrowed(trees: Sequence[ast.AST], under_test: str) -> dict[str, object]:
    """What these tests take from the standard library and the packages of the recipe without importing it.

    Modules, where all that is asked of them is there (a class of the program's called `math` is not asked whether its
    answer is close), and tools like `Counter`, unless nothing else could be under test. `under_test`: a name that is.
    """
    attributes, others = _uses(trees)
    bound = _find_bound(trees)
    found: dict[str, object] = {
        name: importlib.import_module(module)
        for name, module in _find_elsewhere(trees).items()
        if find_spec(module) is not None
    }
    for name in attributes.keys() & set(_MODULES) - others - bound:
        module = importlib.import_module(name)
        if attributes[name] <= set(dir(module)):
            found[name] = module
    free = {name for name in attributes.keys() | others if not hasattr(builtins, name)} | ({under_test} - {""})
    if free - bound - found.keys() - _TOOLS.keys():
        found |= {name: tool for name, tool in _TOOLS.items() if name in free - bound}
    return found


def find_shadowing(tests: Sequence[Mapping[str, Any]]) -> frozenset[str]:
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


def _uses(trees: Sequence[ast.AST]) -> tuple[dict[str, set[str]], set[str]]:
    """Names of which attributes are used, with those; and names that are used in another way."""
    attributes: dict[str, set[str]] = {}
    others: set[str] = set()
    bases: set[ast.expr] = set()
    for node in _nodes(trees):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.setdefault(node.value.id, set()).add(node.attr)
            bases.add(node.value)
        elif isinstance(node, ast.Name) and node not in bases:
            others.add(node.id)
    return attributes, others


def _find_bound(trees: Sequence[ast.AST]) -> set[str]:
    """What the tests define or import themselves, anywhere."""
    bound: set[str] = set()
    for node in _nodes(trees):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    return bound


def _nodes(trees: Sequence[ast.AST]) -> Iterator[ast.AST]:
    return (node for tree in trees for node in ast.walk(tree))
