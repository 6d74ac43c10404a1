"""Honest programs in the awkward forms that people and models write: each must pass, as it does in an ordinary interpreter.

(Objects and values across the two cells have more in tests/rewards/code/test_score.py.)
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rewards.code.test_score import Held

ASSERTED: dict[str, tuple[str, list[str]]] = {
    "lca tests' nodes": ('class Solution:\n    def lca(self, root, p, q):\n        if not root or root == p or root == q: return root\n        l = self.lca(root.left, p, q)\n        r = self.lca(root.right, p, q)\n        return root if l and r else l or r', [
        'class TreeNode:\n    def __init__(self, val=0, left=None, right=None):\n        self.val, self.left, self.right = val, left, right\nb, c = TreeNode(2), TreeNode(3)\na = TreeNode(1, b, c)\nassert Solution().lca(a, b, c) == a\nassert Solution().lca(a, b, c) is a',
    ]),
    'iter resets': ('class Count:\n    def __init__(self, n): self.n = n\n    def __iter__(self):\n        self.i = 0\n        return self\n    def __next__(self):\n        if self.i >= self.n: raise StopIteration\n        self.i += 1\n        return self.i', [
        'c = Count(3)\nassert list(c) == [1,2,3]\nassert list(c) == [1,2,3]\nassert sum(Count(4)) == 10',
    ]),
    'fn returns iter class': ('class C:\n    def __init__(self, n): self.n = n\n    def __iter__(self):\n        self.i = 0\n        return self\n    def __next__(self):\n        if self.i >= self.n: raise StopIteration\n        self.i += 1\n        return self.i\ndef f(n): return C(n)', [
        'assert list(f(3)) == [1,2,3]',
    ]),
    'generator isinstance': ('def f(n):\n    yield from range(n)', [
        'import types\nassert isinstance(f(3), types.GeneratorType)\nassert list(f(3)) == [0,1,2]',
        'import inspect\nassert inspect.isgenerator(f(2))',
        'from collections.abc import Iterator\nassert isinstance(f(2), Iterator)',
    ]),
    'BST': ('class BST:\n    def __init__(self): self.s = set()\n    def insert(self, x): self.s.add(x)\n    def __contains__(self, x): return x in self.s\n    def __len__(self): return len(self.s)', [
        'b = BST()\nb.insert(5)\nassert 5 in b and 6 not in b and len(b) == 1',
    ]),
    'vector': ("import math\nclass Vector:\n    def __init__(self, x, y): self.x, self.y = x, y\n    def __add__(s, o): return Vector(s.x+o.x, s.y+o.y)\n    def __sub__(s, o): return Vector(s.x-o.x, s.y-o.y)\n    def __mul__(s, o): return s.x*o.x+s.y*o.y if isinstance(o, Vector) else Vector(s.x*o, s.y*o)\n    __rmul__ = __mul__\n    def __abs__(s): return math.hypot(s.x, s.y)\n    def __neg__(s): return Vector(-s.x, -s.y)\n    def __eq__(s, o): return isinstance(o, Vector) and (s.x, s.y) == (o.x, o.y)\n    def __repr__(s): return f'Vector({s.x}, {s.y})'\n    def __bool__(s): return bool(s.x or s.y)\n    def __iter__(s): return iter((s.x, s.y))\n    def __getitem__(s, i): return (s.x, s.y)[i]\n    def __len__(s): return 2", [
        'assert abs(Vector(3,4)) == 5',
        'assert abs(Vector(1,1) - Vector(4,5)) == 5',
        'assert Vector(1,2)*Vector(3,4) == 11',
        'assert (Vector(1,2)+Vector(3,4))*Vector(1,1) == 10',
        'assert -Vector(1,2) == Vector(-1,-2)',
        'assert 2*Vector(1,2) == Vector(2,4)',
        "assert repr(Vector(1,2)) == 'Vector(1, 2)'",
        'x, y = Vector(1,2)\nassert (x, y) == (1, 2)',
        'assert not Vector(0,0)',
        'v = Vector(3,4)\nassert v[0] == 3 and len(v) == 2 and list(v) == [3,4] and tuple(v) == (3,4)',
        'assert sum(Vector(1,2)) == 3',
        'assert Vector(1,2) != Vector(2,1)',
    ]),
    'temperature': ('class Temp:\n    def __init__(self, c): self.c = c\n    def __float__(self): return float(self.c)\n    def __int__(self): return int(self.c)\n    def __round__(self, n=0): return round(self.c, n)\n    def __lt__(self, o): return self.c < o.c', [
        'assert float(Temp(3)) == 3.0 and int(Temp(3.5)) == 3',
        'assert round(Temp(2.345), 2) == round(2.345, 2)',
        'assert Temp(1) < Temp(2) and sorted([Temp(2), Temp(1)])[0].c == 1',
        'assert max(Temp(1), Temp(2)).c == 2 and min([Temp(4), Temp(3)]).c == 3',
    ]),
    'enum': ('from enum import Enum\nclass Color(Enum):\n    RED = 1\n    BLUE = 2\n    def __lt__(s, o): return s.value < o.value\ndef f(): return Color.RED', [
        'assert f() == Color.RED and f() is Color.RED and Color.RED.value == 1 and Color(2) == Color.BLUE',
        "assert [c.name for c in Color] == ['RED', 'BLUE']",
        'assert Color.RED < Color.BLUE',
        "assert Color['RED'].name == 'RED' and len(Color) == 2",
    ]),
    'inheritance': ("class Animal:\n    def speak(self): return '...'\nclass Dog(Animal):\n    def speak(self): return 'Woof'", [
        'assert issubclass(Dog, Animal) and isinstance(Dog(), Animal)',
        "assert Dog().speak() == 'Woof'",
    ]),
    'linked list': ('class Node:\n    def __init__(self, data): self.data, self.next = data, None\nclass LinkedList:\n    def __init__(self): self.head = None\n    def append(self, x):\n        n = Node(x)\n        if not self.head: self.head = n; return\n        c = self.head\n        while c.next: c = c.next\n        c.next = n\n    def to_list(self):\n        out, c = [], self.head\n        while c: out.append(c.data); c = c.next\n        return out\n    def reverse(self):\n        p, c = None, self.head\n        while c: c.next, p, c = p, c, c.next\n        self.head = p\n    def __iter__(self):\n        c = self.head\n        while c:\n            yield c.data\n            c = c.next\n    def __len__(self): return sum(1 for _ in self)\n    def __getitem__(self, i): return self.to_list()[i]', [
        'l = LinkedList()\nfor i in range(3): l.append(i)\nassert l.to_list() == [0,1,2] and list(l) == [0,1,2] and len(l) == 3 and l[1] == 1\nl.reverse()\nassert list(l) == [2,1,0] and l.head.data == 2 and l.head.next.next.next is None\nc = l.head\nout = []\nwhile c:\n    out.append(c.data)\n    c = c.next\nassert out == [2,1,0]',
    ]),
    'fn makes container': ('class L:\n    def __init__(self, x): self.x = x\n    def __iter__(self): return iter(self.x)\n    def __len__(self): return len(self.x)\n    def __getitem__(self, i): return self.x[i]\ndef build(x): return L(x)', [
        'assert list(build([1,2])) == [1,2]',
        'assert len(build([1,2])) == 2',
        'assert build([1,2])[1] == 2',
        'b = build([1,2])\nassert list(b) == [1,2] and len(b) == 2 and 2 in b and sorted(b) == [1,2] and sum(b) == 3',
    ]),
    'match object': ("import re\ndef f(s): return re.match(r'\\d+', s)", [
        "assert f('12') and not f('a')",
        "assert f('12').group() == '12'",
        "assert f('a') is None",
        "assert bool(f('1')) is True",
    ]),
    'array': ("from array import array\ndef f(n): return array('i', range(n))", [
        'a = f(3)\nassert list(a) == [0,1,2] and len(a) == 3 and a[1] == 1',
    ]),
    'context mgr': ('class M:\n    def __enter__(self): self.open = True; return self\n    def __exit__(self, t, v, tb): self.open = False; return t is ValueError', [
        'm = M()\nwith m as x:\n    assert x.open\nassert not m.open',
        "with M():\n    raise ValueError('x')",
        'try:\n    with M(): raise KeyError(1)\n    assert False\nexcept KeyError: pass',
    ]),
    'decorator/closure': ('def counter():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n        return n\n    return inc', [
        'c = counter()\nassert [c(), c(), c()] == [1,2,3]\nassert counter()() == 1 and callable(c)',
    ]),
    'memo': ('import functools\n@functools.lru_cache(maxsize=None)\ndef fib(n): return n if n < 2 else fib(n-1)+fib(n-2)', [
        'assert fib(80) == 23416728348467685',
        'fib(10)\nassert fib.cache_info().hits > 0',
    ]),
    'dataclass order': ('from dataclasses import dataclass\n@dataclass(order=True, frozen=True)\nclass P:\n    x: int\n    y: int = 0\ndef mk(a, b): return P(a, b)\ndef top(ps): return max(ps)', [
        'assert mk(1, 2) == P(1, 2)',
        'assert P(1) < P(2)',
        'assert top([P(1), P(3), P(2)]) == P(3)',
        'assert {mk(1,2), P(1,2)} == {P(1,2)}',
        "assert str(P(1)) == 'P(x=1, y=0)'",
        'assert sorted([P(2), P(1)]) == [P(1), P(2)]',
        'assert mk(1,2) in [P(1,2)]',
        'assert mk(1, 2) != P(1, 3)',
    ]),
    'kw-only, varargs': ('def f(*a, key=None, **k): return (a, key, k)', [
        "assert f(1, 2, key=3, z=4) == ((1,2), 3, {'z': 4})",
    ]),
    'mutual callbacks': ('def apply(f, xs): return list(map(f, xs))\ndef compose(*fs):\n    def g(x):\n        for f in reversed(fs): x = f(x)\n        return x\n    return g', [
        'assert apply(lambda x: x+1, [1,2]) == [2,3]',
        'assert compose(lambda x: x*2, lambda x: x+1)(3) == 8',
        "assert apply(len, ['a', 'bb']) == [1,2]",
    ]),
    'raises custom': ("class StackEmpty(Exception): pass\nclass Stack:\n    def __init__(self): self.i = []\n    def pop(self):\n        if not self.i: raise StackEmpty('empty')\n        return self.i.pop()", [
        "s = Stack()\ntry:\n    s.pop()\n    assert False, 'no'\nexcept StackEmpty as e:\n    assert str(e) == 'empty'",
        "try: Stack().pop()\nexcept Exception as e: assert type(e).__name__ == 'StackEmpty'",
    ]),
    'LRU': ('from collections import OrderedDict\nclass LRUCache:\n    def __init__(self, c): self.c, self.d = c, OrderedDict()\n    def get(self, k):\n        if k not in self.d: return -1\n        self.d.move_to_end(k); return self.d[k]\n    def put(self, k, v):\n        self.d[k] = v; self.d.move_to_end(k)\n        if len(self.d) > self.c: self.d.popitem(last=False)', [
        'c = LRUCache(2)\nc.put(1,1); c.put(2,2)\nassert c.get(1) == 1\nc.put(3,3)\nassert c.get(2) == -1 and c.get(3) == 3',
    ]),
    'set-up import': ('def area(r):\n    import math\n    return math.pi*r*r', [
        'import math\nassert math.isclose(area(2), 4*math.pi)',
        'assert abs(area(1) - 3.14159) < 1e-4',
        'assert round(area(1), 2) == 3.14',
    ]),
    'tests use program import': ('from collections import Counter, defaultdict\nfrom typing import List\nimport math\ndef f(x): return Counter(x)', [
        "assert f('aab') == Counter('aab')",
        "assert f('aab')['a'] == 2",
        'assert math.sqrt(4) == 2.0',
        'x: List[int] = [1]\nassert Counter(x) == {1: 1}',
    ]),
    'tests use Decimal from program': ('from decimal import Decimal\nfrom fractions import Fraction\ndef f(x): return Decimal(x) / 4', [
        "assert f(1) == Decimal('0.25')",
        'assert Fraction(1, 2) == 0.5',
    ]),
    'stable sort w/ key': ('def f(xs, key=None): return sorted(xs, key=key)', [
        "assert f(['bb','a'], key=len) == ['a','bb']",
        'assert f([3,1,2]) == [1,2,3]',
    ]),
    'unicode asserts': ('def f(s): return s.upper()', [
        "assert f('straße') == 'STRASSE'",
        "assert f('é') == 'É'",
    ]),
    'two-level generator': ('def f(n):\n    return ((i, j) for i in range(n) for j in range(i))', [
        'assert list(f(3)) == [(1,0),(2,0),(2,1)]',
        'assert len(list(f(3))) == 3',
        'assert set(f(2)) == {(1,0)}',
        'assert dict(f(3)) == {1:0, 2:1}',
    ]),
    'zip/map/filter objs': ('def f(a, b): return zip(a, b)\ndef g(a): return filter(None, a)\ndef h(a): return reversed(a)\ndef e(a): return enumerate(a)', [
        'assert list(f([1],[2])) == [(1,2)]',
        'assert list(g([0,1])) == [1]',
        'assert list(h([1,2])) == [2,1]',
        "assert list(e('a')) == [(0,'a')]",
        "assert dict(f('ab',[1,2])) == {'a':1,'b':2}",
    ]),
    'class static': ('class MathOps:\n    @staticmethod\n    def add(a,b): return a+b\n    @classmethod\n    def make(cls): return cls()\n    PI = 3\n    def __add__(s, o): return 7', [
        'assert MathOps.add(1,2) == 3 and MathOps.PI == 3 and isinstance(MathOps.make(), MathOps)',
    ]),
    'property + setter': ('class T:\n    def __init__(self): self._c = 0; self.log = []\n    @property\n    def c(self): self.log.append(1); return self._c\n    @c.setter\n    def c(self, v):\n        if v < -273: raise ValueError\n        self._c = v', [
        't = T()\nt.c = 5\nassert t.c == 5\nassert len(t.log) == 1\nt.c\nassert len(t.log) == 2\ntry:\n    t.c = -300\n    assert False\nexcept ValueError: pass',
    ]),
    'matrix': ('class Matrix:\n    def __init__(self, r): self.r = r\n    def __matmul__(s, o): return Matrix([[sum(a*b for a,b in zip(x,y)) for y in zip(*o.r)] for x in s.r])\n    def __eq__(s, o): return s.r == o.r\n    def __getitem__(s, ij): return s.r[ij[0]][ij[1]]\n    def __setitem__(s, ij, v): s.r[ij[0]][ij[1]] = v', [
        'm = Matrix([[1,2],[3,4]]) @ Matrix([[1,0],[0,1]])\nassert m == Matrix([[1,2],[3,4]]) and m[0,1] == 2\nm[0,1] = 9\nassert m[0,1] == 9',
    ]),
    'bare expr': ('def f(x): return x+1', [
        'f(1) == 2',
    ]),
    'global state': ('total = 0\ndef add(x):\n    global total\n    total += x\n    return total', [
        'assert add(1) == 1',
        'assert add(2) == 3',
        'assert total == 3',
    ]),
    'unittest style': ('def f(x): return x+1', [
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(1), 2)\n        self.assertAlmostEqual(f(1.0), 2.0)\n        self.assertTrue(f(0))\n        with self.assertRaises(TypeError): f('a')\nr = unittest.TestResult()\nunittest.defaultTestLoader.loadTestsFromTestCase(T).run(r)\nassert r.wasSuccessful(), r.failures + r.errors",
    ]),
    'unittest assert no module': ('def f(x): return x+1', [
        'import unittest\nt = unittest.TestCase()\nt.assertEqual(f(1), 2)\nt.assertCountEqual([f(1), f(2)], [3,2])\nt.assertRaises(TypeError, f, None)',
    ]),
}  # fmt: skip
READING: dict[str, tuple[str, list[tuple[str, str]]]] = {
    'exit()': ('print(1)\nexit()', [('', '1')]),
    'exit(0)': ('print(1)\nexit(0)\nprint(2)', [('', '1')]),
    'quit()': ('print(1)\nquit()\nprint(2)', [('', '1')]),
    'crlf input': ('a=input()\nb=input()\nprint(a+b)', [('1\r\n2\r\n', '12\r\n')]),
    'no final newline': ('import sys\nfor l in sys.stdin: print(l.strip())', [('a\nb', 'a\nb\n')]),
    'unicode': ('s=input()\nprint(s[::-1], len(s))', [('héé😀\n', '😀ééh 4')]),
    'tabs': ("if True:\n\tprint('a\\tb')", [('', 'a\tb')]),
    'prompt': ("n = input('Enter: ')\nprint(n)", [('3\n', 'Enter: 3')]),
    'buffer': ('import sys\nd = sys.stdin.buffer.read().split()\nprint(int(d[0])+int(d[1]))', [('1 2\n', '3')]),
    'readline': ('import sys\ninput = sys.stdin.readline\nn=int(input())\nprint(sum(int(input()) for _ in range(n)))', [('2\n3\n4', '7')]),
    'open0': ('print(sum(map(int, open(0).read().split())))', [('1 2 3', '6')]),
    'open0 iter': ('*a, = map(int, open(0))\nprint(sum(a))', [('1\n2\n3', '6')]),
    'main guard': ("def main():\n    print(input())\nif __name__ == '__main__':\n    main()", [('x', 'x')]),
    'deep thread': ('import sys, threading\nsys.setrecursionlimit(10**7)\nthreading.stack_size(1<<27)\ndef dfs(n):\n    return 0 if n == 0 else 1 + dfs(n-1)\ndef main():\n    print(dfs(100000))\nt = threading.Thread(target=main)\nt.start()\nt.join()', [('', '100000')]),
    'deep main, a stack of its own': ('import resource, sys\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\nsys.setrecursionlimit(10**7)\ndef f(n): return 0 if n==0 else 1+f(n-1)\nprint(f(200000))', [('', '200000')]),
    'deep main': ('import sys\nsys.setrecursionlimit(10**7)\ndef f(n): return 0 if n==0 else 1+f(n-1)\nprint(f(200000))', [('', '200000')]),
    'deep with lambda/sorted': ('import sys\nsys.setrecursionlimit(10**6)\nfrom functools import lru_cache\n@lru_cache(None)\ndef f(n): return 0 if n==0 else 1+f(n-1)\nprint(f(20000))', [('', '20000')]),
    'big int': ("print('9'*5000 == str(10**5000-1))", [('', 'True')]),
    'big int in': ('print(int(input()) % 7)', [('999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999', '0')]),
    'heavy memory': ('x = [0]*(40*10**6)\nprint(len(x))', [('', '40000000')]),
    'dataclass': ('from dataclasses import dataclass, field\nfrom typing import *\nfrom collections import *\n@dataclass(order=True)\nclass A:\n    x: int\n    y: List[int] = field(default_factory=list)\nprint(sorted([A(2), A(1)])[0])', [('', 'A(x=1, y=[])')]),
    'os.write': ("import os\nos.write(1, b'3\\n')", [('', '3')]),
    'fileinput': ('import fileinput\nprint(sum(int(l) for l in fileinput.input()))', [('1\n2', '3')]),
    'setrecursion+exec': ("exec('print(3)')", [('', '3')]),
    'sys.exit nested': ('import sys\ndef main():\n    print(3)\n    sys.exit()\nmain()', [('', '3')]),
    'sys.stdout.write': ("import sys\nsys.stdout.write('3')", [('', '3\n')]),
    'print to stderr': ("import sys\nprint('dbg', file=sys.stderr)\nprint(3)", [('', '3')]),
    'os._exit flush': ('import sys, os\nprint(3)\nsys.stdout.flush()\nos._exit(0)', [('', '3')]),
    'input eof handled': ('try:\n    while True: print(input())\nexcept EOFError: pass', [('a\nb', 'a\nb')]),
    'random seed': ('import random\nrandom.seed(1)\nprint(random.randint(1, 10**9) == random.Random(1).randint(1, 10**9))', [('', 'True')]),
    'iobuffer trick': ("import os, sys\nfrom io import BytesIO, IOBase\nBUFSIZE = 8192\nclass FastIO(IOBase):\n    newlines = 0\n    def __init__(self, file):\n        self._fd = file.fileno()\n        self.buffer = BytesIO()\n        self.writable = 'x' in file.mode or 'r' not in file.mode\n        self.write = self.buffer.write if self.writable else None\n    def read(self):\n        while True:\n            b = os.read(self._fd, max(os.fstat(self._fd).st_size, BUFSIZE))\n            if not b: break\n            ptr = self.buffer.tell()\n            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)\n        self.newlines = 0\n        return self.buffer.read()\n    def readline(self):\n        while self.newlines == 0:\n            b = os.read(self._fd, max(os.fstat(self._fd).st_size, BUFSIZE))\n            self.newlines = b.count(b'\\n') + (not b)\n            ptr = self.buffer.tell()\n            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)\n        self.newlines -= 1\n        return self.buffer.readline()\n    def flush(self):\n        if self.writable:\n            os.write(self._fd, self.buffer.getvalue())\n            self.buffer.truncate(0), self.buffer.seek(0)\nclass IOWrapper(IOBase):\n    def __init__(self, file):\n        self.buffer = FastIO(file)\n        self.flush = self.buffer.flush\n        self.writable = self.buffer.writable\n        self.write = lambda s: self.buffer.write(s.encode('ascii'))\n        self.read = lambda: self.buffer.read().decode('ascii')\n        self.readline = lambda: self.buffer.readline().decode('ascii')\nsys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)\ninput = lambda: sys.stdin.readline().rstrip('\\r\\n')\nn = int(input())\nprint(sum(map(int, input().split())))\nsys.stdout.flush()", [('2\n1 2\n', '3'), ('2\n1 4\n', '5')]),
}  # fmt: skip
SUM = "print(sum(map(int, input().split())))"
RESPONSES = {
    'bare': 'SUM',
    'several fences': '```python\nprint(1)\n```\ntext\n```python\nSUM\n```\n```\n3\n```',
    'tilde': '~~~python\nSUM\n~~~',
    'indented': '1. x\n\n    ```python\n    SUM\n    ```\n',
    'in think': '<think>\n```python\nprint(9)\n```\n</think>\n```python\nSUM\n```',
    'unclosed': '```python\nSUM',
    'crlf': '```python\r\nSUM\r\n```\r\n',
    'answer fence': '<think>x</think><answer>```python\nSUM\n```</answer>',
    'answer fence2': '<think>x</think>\n<answer>\n```python\nSUM\n```\n</answer>',
    'answer fence3': '<think>x</think>\n<answer>Here: \n```python\nSUM\n```</answer>',
    'same line': 'Here it is: ```python\nSUM\n```',
    'close at line end': '```python\nSUM```',
    'Python caps': '```Python\nSUM\n```\n```output\n3\n```',
    '{.python}': '```{.python}\nSUM\n```\n```\n3\n```',
    'python3.11': '```python3.11\nSUM\n```\n```\n3\n```',
    'python:main.py': '```python:main.py\nSUM\n```\n```\n3\n```',
    'python 3': '```python 3\nSUM\n```\n```\n3\n```',
    'code with think text': "```python\nSUM\ns = '<think>'\n```",
    'docstring fence': "```python\n'''\nexample:\n    ```\n    x\n    ```\n'''\nSUM\n```",
    'bom': '\ufeffSUM',
    'shebang': '```python\n#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\nSUM\n```',
    'form feed': '```python\n\x0cSUM\n```',
    'nbsp': '```python\nSUM # \xa0é\n```',
}  # fmt: skip
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    'mbpp': ("```python\nimport re\ndef text_match(t):\n    return 'Found' if re.search('ab*', t) else 'Not'\n```", {'test_list': ['assert text_match("ac")==("Found")', 'assert text_match("dc")==("Not")'], 'test_setup_code': '', 'challenge_test_list': []}),
    'mbpp class': ('```python\nclass Pair(object):\n    def __init__(self, a, b):\n        self.a = a\n        self.b = b\ndef max_chain_length(arr, n):\n    mx = [1]*n\n    for i in range(1,n):\n        for j in range(i):\n            if arr[i].a > arr[j].b and mx[i] < mx[j]+1: mx[i] = mx[j]+1\n    return max(mx)\n```', {'test_list': ['assert max_chain_length([Pair(5, 24), Pair(15, 25),Pair(27, 40), Pair(50, 60)], 4) == 3']}),
    'mbpp node': ('```python\nclass Node:\n    def __init__(self, data):\n        self.data = data\n        self.left = None\n        self.right = None\ndef max_height(node):\n    if node is None: return 0\n    return 1 + max(max_height(node.left), max_height(node.right))\n```', {'test_setup_code': 'root = Node(1)\nroot.left = Node(2)\nroot.right = Node(3)\nroot.left.left = Node(4)', 'test_list': ['assert (max_height(root)) == 3']}),
    'mbpp math imports': ('```python\nimport math\ndef f(r): return math.pi*r\n```', {'test_imports': ['import math'], 'test_list': ['assert math.isclose(f(2), 2*math.pi, rel_tol=0.001)']}),
    'mbpp heapq': ('```python\nimport heapq as hq\ndef heap_sort(iterable):\n    h = []\n    for value in iterable: hq.heappush(h, value)\n    return [hq.heappop(h) for i in range(len(h))]\n```', {'test_list': ['assert heap_sort([1, 3, 5, 7, 9, 2, 4, 6, 8, 0])==[0,1,2,3,4,5,6,7,8,9]']}),
    'lcb fn': ('class Solution:\n    def twoSum(self, nums: List[int], t: int) -> List[int]:\n        for i, a in enumerate(nums):\n            for j in range(i):\n                if a + nums[j] == t: return [j, i]', {'fn_name': 'twoSum', 'tests': [{'input': '[2,7,11,15]\n9', 'output': '[0,1]', 'testtype': 'functional'}]}),
    'lcb fn typed': ('from typing import List\nclass Solution:\n    def twoSum(self, nums: List[int], t: int) -> List[int]:\n        for i, a in enumerate(nums):\n            for j in range(i):\n                if a + nums[j] == t: return [j, i]', {'fn_name': 'twoSum', 'tests': [{'input': '[2,7,11,15]\n9', 'output': '[0,1]', 'testtype': 'functional'}]}),
    'lcb str': ('class Solution:\n    def f(self, s: str) -> str: return s[::-1]', {'fn_name': 'f', 'tests': [{'input': '"a\\nb"', 'output': '"b\\na"', 'testtype': 'functional'}]}),
    'lcb null/bool': ('class Solution:\n    def f(self, x): return None if x else False', {'fn_name': 'f', 'tests': [{'input': 'true', 'output': 'null', 'testtype': 'functional'}, {'input': 'false', 'output': 'false', 'testtype': 'functional'}]}),
    'apps json str': ('n = int(input())\nprint(n*2)', {'input_output': '{"inputs": ["1\\n"], "outputs": ["2\\n"]}'}),
    'apps fn': ('def f(a, b): return a+b', {'input_output': '{"fn_name": "f", "inputs": [[1,2]], "outputs": [[3]]}'}),
    'he body': ('    return helper(x) + 1', {'prompt': 'from typing import List\nimport math\n\ndef helper(x):\n    return x*2\n\n\ndef f(x: int) -> int:\n    """ doc """\n', 'entry_point': 'f', 'test': 'METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 3\n'}),
    'he whole, no imports': ('```python\ndef f(x: List[int]) -> int:\n    return helper(x[0]) + int(math.sqrt(1))\n```', {'prompt': 'from typing import List\nimport math\n\ndef helper(x):\n    return x*2\n\n\ndef f(x: List[int]) -> int:\n    """ doc """\n', 'entry_point': 'f', 'test': 'def check(candidate):\n    assert candidate([1]) == 3\n'}),
    'he future': ('```python\n"""doc"""\nfrom __future__ import annotations\ndef f(x: Foo) -> int:\n    return helper(x)\n```', {'prompt': "def helper(x):\n    return x*2\n\ndef f(x):\n    '''doc'''\n", 'entry_point': 'f', 'test': 'def check(candidate):\n    assert candidate(1) == 2\n'}),
    'he prose prompt': ('```python\ndef f(x):\n    return x*2\n```', {'prompt': "Please write this:\n\ndef f(x):\n    '''doc'''\n", 'entry_point': 'f', 'test': 'def check(candidate):\n    assert candidate(1) == 2\n'}),
    'he class entry': ('```python\nclass Foo:\n    def g(self): return 2\n```', {'prompt': "class Foo:\n    '''doc'''\n", 'entry_point': 'Foo', 'test': 'def check(candidate):\n    assert candidate().g() == 2\n'}),
    'he async gen name in test': ('```python\ndef f(x):\n    return [x]\n```', {'prompt': 'def f(x):\n', 'entry_point': 'f', 'test': "def check(candidate):\n    for i in range(5):\n        assert candidate(i) == [i], 'msg'\n    assert f(3) == [3]\ncheck(f)"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


@pytest.mark.parametrize(("program", "asserts"), ASSERTED.values(), ids=ASSERTED)
def test_programs_under_assertions(held: Held, program: str, asserts: list[str]) -> None:
    result = held.asserts(program, *asserts, scoring="fraction")
    assert [(text, test) for text, test in zip(asserts, result.tests, strict=True) if test.outcome != "pass"] == []
    # The table itself must hold: the same in one ordinary interpreter.
    namespace: dict[str, Any] = {"__name__": "solution"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program, namespace)
        for text in asserts:
            exec(text, namespace)


@pytest.mark.parametrize(("program", "cases"), READING.values(), ids=READING)
def test_programs_that_read_an_input(held: Held, program: str, cases: list[tuple[str, str]]) -> None:
    tests = [{"input": given, "output": expected} for given, expected in cases]
    result = held.score(f"```python\n{program}\n```", tests=tests)
    assert result.value == 1, result.tests


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_responses(held: Held, response: str) -> None:
    result = held.score(response.replace("SUM", SUM), tests=[{"input": "1 2\n", "output": "3\n"}])
    assert result.value == 1, (result.program, result.tests)


@pytest.mark.parametrize(("response", "fields"), FORMS.values(), ids=FORMS)
def test_forms_of_tests(held: Held, response: str, fields: dict[str, Any]) -> None:
    result = held.score(response, **fields)
    assert result.value == 1, (result.error, result.tests)
