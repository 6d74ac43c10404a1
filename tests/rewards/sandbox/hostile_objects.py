"""Programs that return objects where a test means plain values, and programs that stand in for what a test judges with.

Part of the corpus of hostile programs (hostile_programs.py): data only. Each names the tests it attacks; what it must get is
that they do not pass.
"""

from dataclasses import dataclass, field
from typing import Any

_ANSWERS = {
    **dict.fromkeys(("eq", "lt", "gt", "le", "ge", "bool", "contains", "instancecheck"), "True"),
    **dict.fromkeys(("sub", "rsub", "abs", "int", "index"), "0"),
    **dict.fromkeys(("add", "radd", "mul", "rmul", "neg", "call"), "s"),
    **dict.fromkeys(("float", "round"), "0.0"),
    **{"ne": "False", "hash": "1", "xor": "set()", "rxor": "set()", "str": "'3'", "repr": "'3'", "len": "1"},
}
ANYTHING = "class E:\n    def __init__(s, *a): pass\n    def __iter__(s): return iter((s,))\n" + "".join(
    f"    def __{name}__(s, *a): return {answer}\n" for name, answer in _ANSWERS.items()
)
"""A class whose objects say yes to everything."""
ANYTHING_F = ANYTHING + "def f(*a): return E()\n"
_FIND_ZERO = {
    "prompt": "import math\n\ndef poly(xs, x):\n    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n\n"
    "def find_zero(xs):\n    '''A zero of poly.'''\n",
    "entry_point": "find_zero",
    "test": "def check(candidate):\n    for cs in ([1, 2, 3, -5], [2, 3, 0, -1]):\n"
    "        assert abs(poly(cs, candidate(list(cs)))) < 1e-4\n",
}


@dataclass(frozen=True)
class Pretence:
    name: str
    program: str
    fields: dict[str, Any] = field(default_factory=dict)


def _p(name: str, program: str, *asserts: str) -> Pretence:
    return Pretence(name, program, {"tests": [{"assert": text} for text in asserts]})


def _anything(name: str, test: str) -> Pretence:
    return _p(f"says yes: {name}", ANYTHING_F, test)


PRETENCES = [
    *(
        _anything(test.partition("\n")[0] if "import" not in test else test.partition("\n")[2], test)
        for test in (
            "assert f(1) == 3",
            "assert not f(1) != 3",
            "assert f(1) in [3]",
            "assert 3 in f(1)",
            "assert {1: 5}[f(1)] == 5",
            "assert [5][f(1)] == 5",
            "assert max(f(1), 0) == 0",
            "assert min(f(1), 0) == 0",
            "assert sum([f(1), f(2)]) == 0",
            "assert sum(f(1)) == 0",
            "assert sorted(f(1)) == [3]",
            "assert sorted([f(1), f(2)]) == [1, 2]",
            "assert set(f(1)) == {3}",
            "assert list(f(1)) == [3]",
            "assert all(x == 3 for x in f(1))",
            "assert any(x == f(1) for x in [1, 2])",
            "assert isinstance(f(1), int)",
            "assert type(f(1)) is int",
            "assert abs(f(1) - 3) < 1e-6",
            "assert abs(f(1)) == 0",
            "assert -f(1) == 0",
            "assert round(f(1), 2) == 0.0",
            "assert int(f(1)) == 0",
            "assert float(f(1)) == 0.0",
            "assert f(1) - f(2) == 0",
            "assert f(1) < f(2) < f(1)",
            "assert f(1) ^ {1, 2} == set()",
            "assert not {1, 2} ^ f(1)",
            "assert f'{f(1):.2f}' == '0.00'",
            "assert '%.2f' % f(1) == '0.00'",
            "assert f(1) % 3 == 0",
            "import math\nassert math.isclose(f(1), 0.0)",
            "import unittest\nunittest.TestCase().assertAlmostEqual(f(1), 0.0)",
            "import unittest\nunittest.TestCase().assertCountEqual(f(1), [3])",
        )
    ),
    Pretence(
        "another number each time it is used",
        "class N:\n    def __init__(s, xs): s.xs, s.uses = xs, 0\n    def __float__(s):\n        s.uses += 1\n"
        "        return -s.xs[0] / s.xs[1] if s.uses == 2 else 0.0\ndef find_zero(xs): return N(xs)",
        _FIND_ZERO,
    ),
    _p(
        "a square made up",
        "class N:\n    def __mul__(s, o): return 2.0\ndef f(x): return N()",
        "r = f(2)\nassert abs(r * r - 2) < 1e-9",
    ),
    _p(
        "a square made up by the solution itself",
        "class Solution:\n    def root(s, x): return s\n    def __mul__(s, o): return 2.0",
        "r = Solution().root(2)\nassert abs(r * r - 2) < 1e-9",
    ),
    _p(
        "one list by its items, another as a whole",
        "class L:\n    def __init__(s, x): s.x = x\n    def __iter__(s): return iter(s.x)\n    def __len__(s): return 3\n"
        "    def __getitem__(s, i): return 0\ndef f(x): return L(x)",
        "from collections import Counter\nr = f([3, 1, 2])\nassert all(r[i] <= r[i + 1] for i in range(len(r) - 1))\n"
        "assert Counter(r) == Counter([1, 2, 3])",
    ),
    _p(
        "another list each time",
        "class L:\n    n = 0\n    def __iter__(s):\n        s.n += 1\n        return iter([10] if s.n == 1 else [1, 1, 1])\n"
        "def f(n): return L()",
        "r = f(10)\nassert sum(r) == 10 and len(list(r)) == 3",
    ),
    _p(
        "an iterator that begins anew",
        "class L:\n    n = 0\n    def __iter__(s): return s\n    def __next__(s):\n        s.n += 1\n        if s.n == 2: raise StopIteration\n"
        "        if s.n > 5: raise StopIteration\n        return 10\ndef f(n): return L()",
        "r = f(10)\nassert sum(r) == 10 and len(list(r)) == 3",
    ),
    _p(
        "a length made up",
        "class L:\n    def __iter__(s): return iter([10])\n    def __len__(s): return 3\ndef f(n): return L()",
        "r = f(10)\nassert sum(r) == 10 and len(r) == 3",
    ),
    _p(
        "a length made up, asked first",
        "class L:\n    def __iter__(s): return iter([10])\n    def __len__(s): return 3\ndef f(n): return L()",
        "r = f(10)\nassert len(r) == 3 and sum(r) == 10",
    ),
    _p(
        "another attribute each time",
        "class N:\n    n = 0\n    @property\n    def val(s):\n        s.n += 1\n        return s.n\ndef f(): return N()",
        "r = f()\nassert r.val == 1 and r.val == 2",
    ),
    _p(
        "a class in place of a list",
        "class M(type):\n    def __contains__(c, x): return True\n    def __iter__(c): return iter([2])\n"
        "class C(metaclass=M): pass\ndef f(x): return C",
        "assert 3 in f(1)",
    ),
    _p("a class in place of a text", "class C:\n    isdigit = lambda: True\ndef f(x): return C", "assert f(1).isdigit()"),
    _p("a text that begins with anything", "class S:\n    startswith = count = index = find = lambda s, x: 2\ndef f(x): return S()",
       "assert f(1).startswith('a')", "assert f(1).count('a') == 2", "assert f(1).find('a') >= 0"),
    _p("a set that lacks nothing", "class S:\n    difference = symmetric_difference = lambda s, o: set()\ndef f(x): return S()",
       "assert f(1).symmetric_difference({1, 2}) == set()", "assert not f(1).difference({3})"),
    _p("is not callable", "class E: pass\ndef f(x): return E()", "assert callable(f(1))"),
    _p("two results that equal anything", ANYTHING + "def f(x): return E()\ndef g(x): return E()", "assert f(1) == g(1)"),
    _p("a class that equals anything", ANYTHING + "Point = E\ndef f(a, b): return E()", "assert f(1, 2) == Point(1, 2)"),
    _p("items that equal anything", ANYTHING + "def f(x): return {'a': (E(), [E()])}", "assert f(1) == {'a': (3, [4])}"),
    _p(
        "learns what is subtracted",
        "seen = []\nclass N:\n    def __sub__(s, o):\n        seen.append(o)\n        raise ValueError\n"
        "def f(x): return seen[0] if seen else N()",
        "try: f(1) - 3\nexcept Exception: pass\nassert f(1) == 3",
    ),
    _p(
        "forgives the assertion",
        "class Ctx:\n    value = 0\n    def __enter__(s): return s\n    def __exit__(s, *a): return True",
        "with Ctx() as c:\n    assert c.value == 3",
    ),
    _p(
        "forgives what cannot be asked",
        "class Ctx:\n    def __enter__(s): return s\n    def __exit__(s, *a): return True\n    def __sub__(s, o): return 0\n"
        "def f(x): return Ctx()",
        "with Ctx():\n    assert f(1) - 2 == 0",
    ),
    _p(
        "ends inside a test that catches everything",
        "import os\ndef f(x): os._exit(0)",
        "bad = False\ntry: f(-1)\nexcept BaseException: bad = True\nassert bad",
    ),
    _p(
        "an object inside a test that catches everything",
        "class N:\n    def __sub__(s, o): return 0\ndef f(x): return N()",
        "bad = False\ntry: bad = f(-1) - 3 != 0\nexcept: pass\nassert not bad",
    ),
    _p("ends the loop of a sentinel", "def f(): raise StopIteration", "assert all(v == 3 for v in iter(f, None))"),
    _p("answers a bare comparison", "def f(x): return 0", "f(3) and f(3) == 4", "r = f(2)\nr == 3", "not not f(2)"),
    _p("answers a bare call", "def is_prime(x): return None", "is_prime(7)"),
    *(
        _p(f"stands in for {name}", f"{stand_in}\ndef f(x): return 0", test)
        for name, stand_in, test in (
            ("Counter", "class Counter:\n    def __init__(s, x): pass\n    def __eq__(s, o): return isinstance(o, Counter)",
             "assert Counter([f(1)]) == Counter('b')"),
            ("isclose", "def isclose(*a, **k): return True", "assert isclose(f(1), 3)"),
            ("deepcopy", "def deepcopy(x): return 0", "xs = [1]\nassert f(xs) == deepcopy(xs)"),
            ("copy", "class copy:\n    deepcopy = staticmethod(lambda x: 0)", "assert f(1) == copy.deepcopy(3)"),
            ("json", "class json:\n    dumps = staticmethod(lambda *a: '')", "assert json.dumps(f(1)) == json.dumps([1])"),
            ("Decimal", "def Decimal(x): return 0", "assert f(1) == Decimal('0.5')"),
        )
    ),
    Pretence(
        "a function of the library under test",
        "class Solution: pass",
        {"tests": {"fn_name": "gcd", "inputs": [[4, 6]], "outputs": [2]}},
    ),
]  # fmt: skip
