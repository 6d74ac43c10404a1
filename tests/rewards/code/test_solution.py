"""Which of several blocks is the solution."""

import random
import time

import pytest

from rewards.code.outline import outline
from rewards.code.program import program_of
from rewards.code.solution import Asked, find_solution
from rewards.code.tasks import parse_task

READ = Asked(reads=True)
RUN = Asked()
MAIN = "def main():\n    a, b = map(int, input().split())\n    print(a + b)"
SUM = "a, b = map(int, input().split())\nprint(a + b)"
ADD = "class Solution:\n    def add(self, a, b):\n        return a + b"
SUBPROCESS = "import subprocess\nprint(subprocess.run(['python3', 'sol.py'], input='2 3', text=True, capture_output=True).stdout)"


def asks(*names: str) -> Asked:
    return Asked(names=frozenset(names))


@pytest.mark.parametrize(
    ("asked", "blocks", "chosen"),
    [
        # A program that is run, then what only shows how
        (READ, [SUM, SUBPROCESS], [0]),
        (READ, [SUM, "# input: 2 3\n# output: 5"], [0]),
        (READ, [SUM, "assert 2 + 3 == 5\nprint('ok')"], [0]),
        (READ, [SUM, "import io, sys\nsys.stdin = io.StringIO('2 3')\na, b = map(int, input().split())\nprint(a + b)"], [0]),
        (READ, [f"{MAIN}\nmain()", "import io, sys\nsys.stdin = io.StringIO('2 3')\nmain()"], [0]),
        (READ, [f"{MAIN}\nif __name__ == '__main__':\n    main()", "from unittest.mock import patch\nwith patch('builtins.input', return_value='2 3'):\n    main()"], [0]),
        (READ, [f"{MAIN}\nmain()", "from sol import main\nmain()"], [0]),
        (READ, ["def add(a, b):\n    return a + b\nprint(add(*map(int, input().split())))", "print(add(2, 3))"], [0]),
        (READ, ["import sys\nprint(sum(map(int, sys.stdin.read().split())))", "print(5)"], [0]),
        (READ, ["print(sum(map(int, open(0).read().split())))", "print(5)"], [0]),
        (READ, ["print(sum(map(int, open('/dev/stdin').read().split())))", "print(5)"], [0]),
        (READ, ["import os\nprint(sum(map(int, os.read(0, 99).split())))", "print(5)"], [0]),
        (RUN, ["print(5)", SUBPROCESS], [0]),
        (RUN, ["print(5)", "import os\nos.system('python3 sol.py > out')\nprint(open('out').read())"], [0]),
        # A draft, then the program
        (READ, ["print(0)", SUM], [1]),
        (READ, [SUM, SUM], [1]),
        (READ, [SUM, f"{MAIN}\nmain()"], [1]),
        (READ, [f"{MAIN}\nmain()", "def main():\n    print(sum(map(int, input().split())))\nmain()"], [1]),
        (RUN, ["print(4)", "print(5)"], [1]),
        (READ, [SUM, "import io, sys\nsys.stdin = io.StringIO(sys.stdin.read())\na = input()\nprint(a)"], [1]),
        # A program in parts
        (READ, [MAIN, "main()"], [0, 1]),
        (READ, [MAIN, "if __name__ == '__main__':\n    main()"], [0, 1]),
        (READ, ["import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and f(n - 1)", "print(f(int(input())))"], [0, 1]),
        (READ, ["import sys\ndata = sys.stdin.read().split()", "print(sum(map(int, data)))"], [0, 1]),
        (READ, ["class Solver:\n    def run(self):\n        print(input())", "s = Solver()\ns.run()"], [0, 1]),
        (READ, ["def gcd(a, b):\n    return a", "def f(x):\n    return gcd(x, x)", "print(f(int(input())))"], [0, 1, 2]),
        # Functions that are called
        (asks("add"), [ADD, "s = Solution()\nprint(s.add(2, 3))"], [0]),
        (asks("add"), [ADD, "from solution import add\nprint(add(2, 3))"], [0]),
        (asks("add"), [ADD, "from solution import Solution\nadd = Solution().add\nprint(add(2, 3))"], [0]),
        (asks("add"), ["def add(a, b):\n    return 0", "def add(a, b):\n    return a + b", "assert add(2, 3) == 5"], [1]),
        (asks("add"), ["def add(a, b):\n    return a + b", ">>> add(2, 3)\n5"], [0]),
        (asks("add"), ["def add(a, b):\n    return a + b", "import unittest\nclass TestAdd(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(2, 3), 5)\nunittest.main()"], [0]),
        (asks("add"), ["add = lambda a, b: a + b", "for add in range(3):\n    print(add)"], [0]),
        (asks("add"), ["import operator\nadd = operator.add", "with open('x') as add:\n    print(add.read())"], [0]),
        (asks("gcd"), ["from math import gcd", "print(gcd(4, 6))"], [0]),
        (asks("f"), ["import math", "def f(x):\n    return math.sqrt(x)", "print(f(4))"], [0, 1]),
        (asks("f"), ["def helper(x):\n    return x", "def f(x):\n    return helper(x)", "print(f(4))"], [0, 1]),
        (asks("f"), ["def f(x):\n    return 0\nprint(f(1))", "def f(x):\n    return x\nprint(f(1))"], [1]),
        (asks("Stack", "Queue"), ["class Stack: pass", "class Queue: pass", "print(Stack(), Queue())"], [0, 1]),
        (asks("Stack", "Queue"), ["class Stack: pass\nclass Queue: pass", "class Queue:\n    x = 1"], [0, 1]),
        (asks("f"), ["async def f(x):\n    return x", "print(f(1))"], [0]),
        (asks("f"), ["try:\n    import numpy\nexcept ImportError:\n    pass\nif True:\n    def f(x):\n        return x", "f(1)"], [0]),
        (asks("f"), ["def f(x):\n    return x +", "print(f(1))"], [0]),
        (asks("f"), ["print(1)", "print(2)"], []),
        (asks("f"), ["    return 1", "\n    return 2", "print(f(1))"], [1]),
        (asks("f"), ["    return 1", "def f(x):\n    return 2", "print(f(1))"], [1]),
        (asks("f"), ["class A:\n    def f(self): pass", "def g():\n    def f(): pass"], []),
    ],
)  # fmt: skip
def test_the_block_that_holds_the_solution(asked: Asked, blocks: list[str], chosen: list[int]) -> None:
    assert find_solution(blocks, asked) == "\n".join(blocks[number] for number in chosen)


def test_what_is_given_is_not_looked_for() -> None:
    blocks = ["from typing import List\nprint(1 / 0)", "def f(x: List[int]):\n    return x"]
    assert find_solution(blocks, Asked(names=frozenset({"f"}), given=frozenset({"List"}))) == blocks[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"tests": {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}},
        {"fn_name": "add", "tests": [{"input": "1\n2", "output": "3", "testtype": "functional"}]},
        {"tests": [{"assert": "assert add(1, 2) == 3"}]},
        {"test_list": ["assert sorted([add(1, 2)]) == [3]"], "test_setup_code": "x = 1"},
        {"prompt": "def add(a, b):\n", "entry_point": "add", "test": "def check(f):\n    assert f(1, 2) == 3\n"},
    ],
)
def test_every_form_of_tests_says_what_it_asks_for(fields: dict[str, object]) -> None:
    response = (
        "```\ndef add(a, b):\n    return a + b\n```\nSo:\n```python\nprint(add(2, 3))\n```\n```bash\npython a.py\n```"
    )
    task = parse_task(fields)
    assert program_of(response, asked=lambda: task.asked) == "def add(a, b):\n    return a + b"


def test_blocks_of_other_languages_hold_no_solution() -> None:
    response = f"```python\n{SUM}\n```\n```javascript\nprint(input())\n```\n```text\nprint(input())\n```"
    assert program_of(response, asked=lambda: READ) == SUM


def test_an_outline_of_anything_takes_linear_time_and_never_fails() -> None:
    random.seed(0)
    words = ["def ", "class ", "Solution", "async ", "import ", "from ", " as ", "for ", " in ", "lambda ", ":", ":=", "=",
             "(", ")", "[", "]", ",", ".", ";", "\n", "\n    ", "\n\t", "f", "x", "input", "print", "sys.stdin", "0", "'''", "'",
             '"', "\\\n", "#", "@", "*", "\0", "\ud800", "é", "?", "$", "`", "\x0c", "\r", "1e", "0x"]  # fmt: skip
    for _ in range(1000):
        outline("".join(random.choices(words, k=random.randrange(1, 40))))
    for piece in (*words, "(a.", "a=", "sys.stdin=", "'''\n", "def f():\n", "import a,", "if a:\n b\n", "x\\\n"):
        began = time.process_time()
        outline(piece * (20_000 // len(piece)))
        assert time.process_time() - began < 2, piece
