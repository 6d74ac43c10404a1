"""Scores of honest programs (for others see the hostile corpus)."""

import asyncio
import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.code.score import CodeResult, Scoring, score_code
from rewards.code.tasks import parse_task
from rewards.sandbox.pool import Sandbox

HUMANEVAL = Path(__file__).parents[3].parent / "shared" / "data" / "humaneval" / "HumanEval.jsonl"


class Held:
    def __init__(self, slots: int = 2) -> None:
        self.runner = asyncio.Runner()
        self.sandbox = Sandbox(slots=slots)
        self.runner.run(self.sandbox.start())

    def score(self, response: str, scoring: Scoring = "all", **fields: Any) -> CodeResult:
        return self.runner.run(score_code(self.sandbox, response, parse_task(fields), scoring))

    def asserts(self, program: str, *asserts: str, scoring: Scoring = "all", **fields: Any) -> CodeResult:
        tests = [{"assert": text} for text in asserts]
        return self.score(f"```python\n{program}\n```", scoring, tests=tests, **fields)

    def close(self) -> None:
        self.sandbox.close()
        self.runner.close()


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


SUM = "a, b = map(int, input().split())\nprint(a + b)"
SUM_CASES: list[dict[str, Any]] = [
    {"tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "5 6", "output": "11"}]},
    {"tests": {"inputs": ["1 2\n", "5 6"], "outputs": ["3\n", "11"]}},
    {"input_output": json.dumps({"inputs": [["1 2", ""], "5 6"], "outputs": [["3"], "11"]})},
    {"tests": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}])},
]
ADD = "def add(a, b):\n    return a + b"
ADD_CASES: list[dict[str, Any]] = [
    {"tests": [{"assert": "assert add(1, 2) == 3"}, {"assert": "assert add('a', 'b') == 'ab'"}]},
    {"test_list": ["assert add(1, 2) == 3", "assert add(X, 6) == 11"], "test_setup_code": "X = 5", "test_imports": ["import math"]},
    {"tests": {"fn_name": "add", "inputs": [[1, 2], [[1], [2]]], "outputs": [3, [1, 2]]}},
    {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [5, 6]], "outputs": [[3], [11]]})},
    {"fn_name": "add", "tests": [{"input": "1\n2", "output": "3", "testtype": "functional"}]},
    {"prompt": "def add(a, b):\n", "entry_point": "add", "test": "def check(f):\n    assert f(1, 2) == 3\n"},
]  # fmt: skip


@pytest.mark.parametrize("fields", [*SUM_CASES, *ADD_CASES])
def test_every_form_tells_right_from_wrong(held: Held, fields: dict[str, Any]) -> None:
    right = SUM if fields in SUM_CASES else ADD
    wrong = right.replace("a + b", "a")
    assert held.score(f"```python\n{right}\n```", **fields).value == 1
    result = held.score(f"```python\n{wrong}\n```", **fields)
    assert (result.value, result.status, result.passed) == (0, "ok", 0)


def test_methods_of_a_class_solution_are_called(held: Held) -> None:
    program = "class Solution:\n    def twice(self, x: int) -> int:\n        return 2 * x"
    fields = {"tests": {"fn_name": "twice", "inputs": [[2]], "outputs": [4]}}
    assert held.score(program, **fields).value == 1
    assert held.score(program.replace("2 *", "3 *"), **fields).value == 0


def test_a_tuple_answers_for_a_list_only_where_the_tests_are_json(held: Held) -> None:
    program = "def f(x): return (x, (x,))"
    assert held.score(program, tests={"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1, [1]], [2, [2]]]}).value == 1
    assert held.asserts(program, "assert f(1) == [1, [1]]").value == 0


@pytest.mark.parametrize(
    ("program", "given", "output", "value"),
    [
        ("def f(x): return [x * 0.1, x * 0.2]", [3], [0.3, 0.6], 1),
        ("def f(x): return x / 3", [1], 0.333333, 1),
        ("def f(x): return x / 3", [1], 0.3334, 0),
        ("def f(x): return x + 1e-12", [3], 3, 1),
        ("def f(x): return x + 0.001", [3], 3, 0),
        ("def f(x): return x + 1", [10**9 + 7], 10**9 + 7, 0),
        ("def f(x): return x + 1.0", [10**9 + 7], 10**9 + 7, 0),
        ("def f(x): return float('nan')", [3], 0.5, 0),
        ("def f(x): return float('inf')", [3], 1e300, 0),
        ("def f(x): return 10 ** 400", [3], 0.5, 0),
        ("def f(x):\n    from fractions import Fraction\n    return Fraction(1, x)", [3], 1 / 3, 1),
        (
            "def f(x):\n    from decimal import Decimal\n    return {'a': (Decimal('0.3'), None, 'b')}",
            [3],
            {"a": [0.3, None, "b"]},
            1,
        ),
        ("def f(x): return '0.30'", [3], "0.3", 0),
        ("def f(x): return {1: x}", [3], {"1": 3}, 1),
        ("def f(x): return {-1: {2: x * 0.1}}", [3], {"-1": {"2": 0.3}}, 1),
        ("def f(x): return {1: x, 2: 4}", [3], {"1": 3}, 0),
        ("def f(x): return {1: 3, '1': 4}", [3], {"1": 4}, 0),
        ("def f(x): return {True: x, None: x, 1.5: x}", [3], {"true": 3, "null": 3, "1.5": 3}, 1),
        ("def f(x): return {k: v for k, v in x.items() if k > 1}", [{"1": 2, "2": 3}], {"2": 3}, 1),
        ("def f(x): return x['1']", [{"1": 2}], 2, 1),
        ("def f(x): return x[1]", [{"1": 2}], 2, 1),
        ("def f(x): return x[0][-1]", [[{"-1": {"2": 3}}]], {"2": 3}, 1),
        ("def f(x): return sorted(x)", [{"01": 2, "1": 3}], ["01", "1"], 1),
        ("def f(x): return x['1'] + x['a']", [{"1": 2, "a": 3}], 5, 1),
        ("def f(x): return len(x)", [{"1" * 5000: 2}], 1, 1),
        ("def f(x): return x[2]", [{"1": 2}], 2, 0),
        ("def f(): return 1", [], 1, 1),
    ],
)
def test_what_a_function_returns_is_what_json_says(
    held: Held, program: str, given: Any, output: Any, value: float
) -> None:
    result = held.score(program, tests={"fn_name": "f", "inputs": [given], "outputs": [output]})
    assert (result.status, result.value) == ("ok", value), result


def test_a_task_sets_the_tolerance_of_its_numbers(held: Held) -> None:
    functions = {"fn_name": "f", "inputs": [[1]], "outputs": [0.3334]}
    assert held.score("def f(x): return x / 3", tests=functions, tolerance=1e-3).value == 1
    assert held.score("def f(x): return x * 0.1 + 0.2", tests=functions | {"outputs": [0.3]}, tolerance=0).value == 0
    pairs = [{"input": "", "output": "0.3334"}]
    assert held.score("print(1 / 3)", tests=pairs).value == 0
    assert held.score("print(1 / 3)", tests=pairs, tolerance=1e-3).value == 1


# --- Scores


def test_all_or_nothing_stops_at_the_first_failure(held: Held) -> None:
    tests = [{"input": str(n), "output": str(n * n)} for n in range(5)]
    result = held.score("n = int(input())\nprint(n * n if n != 2 else 0)", tests=tests)
    assert (result.value, result.passed, result.total, len(result.tests)) == (0, 2, 5, 3)
    assert (result.tests[2].outcome, result.tests[2].reason) == ("fail", "wrong output")


def test_a_fraction_counts_them_all(held: Held) -> None:
    tests = [{"input": str(n), "output": str(n * n)} for n in range(5)]
    result = held.score("n = int(input())\nprint(n * n if n != 2 else 0)", "fraction", tests=tests)
    assert (result.value, result.passed, len(result.tests)) == (0.8, 4, 5)


def test_a_fraction_goes_on_after_a_program_that_ended(held: Held) -> None:
    program = "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    if x == 3:\n        while True: pass\n    return x"
    asserts = [f"assert f({n}) == {n}" for n in range(6)]
    # A test's time includes the start of two cells, which a loaded machine takes long for.
    result = held.asserts(program, *asserts, scoring="fraction", time_limit_s=2)
    assert [test.outcome for test in result.tests] == ["pass", "fail", "pass", "timeout", "pass", "pass"]
    assert (result.status, result.value) == ("timeout", 4 / 6)
    assert result.tests[1].reason == "the program ended"


@pytest.mark.parametrize(
    ("program", "status", "outcome", "reason"),
    [
        ("while True: pass", "timeout", "timeout", ""),
        ("print(1", "ok", "fail", "does not compile: SyntaxError: '(' was never closed (main.py, line 1)"),
        ("x", "ok", "fail", "exit status 1: NameError: name 'x' is not defined"),
        ("import os; os.abort()", "ok", "fail", "ended by signal 6"),
        ("x = bytearray(b'x') * (600 << 20)\nimport time; time.sleep(9)", "ok", "memory", ""),
    ],
)
def test_failures_have_a_status_and_a_reason(held: Held, program: str, status: str, outcome: str, reason: str) -> None:
    result = held.score(program, tests=[{"input": "", "output": "1"}], time_limit_s=0.3 if status == "timeout" else 5)
    assert (result.status, result.value) == (status, 0)
    assert [(test.outcome, test.reason) for test in result.tests] == [(outcome, reason)]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x): return '3'", "returned '3', expected 3"),
        (
            "class N:\n    def __repr__(self): return '3'\ndef f(x): return N()",
            "returned an object that looks like 3, expected 3",
        ),
    ],
)
def test_what_was_returned_is_told_so_that_it_can_be_told_from_what_was_expected(
    held: Held, program: str, reason: str
) -> None:
    result = held.score(program, tests={"fn_name": "f", "inputs": [[1]], "outputs": [3]})
    assert (result.value, result.tests[0].reason) == (0, reason)


def test_a_fault_is_tried_again_with_a_fresh_worker_and_is_never_a_reward() -> None:
    held = Held(slots=1)
    kill_workers(held.sandbox)
    assert held.score(SUM, **SUM_CASES[0]).value == 1
    assert held.sandbox.num_restarts == 1
    held.close()


def test_two_faults_are_an_error(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    from rewards.sandbox.types import SandboxFault

    async def fail(*_: object) -> None:
        raise SandboxFault("a sandbox worker is gone")

    monkeypatch.setattr(held.sandbox, "run_inputs", fail)
    result = held.score(SUM, **SUM_CASES[0])
    assert (result.status, result.value, result.tests) == ("error", 0, ())
    assert result.error == "a sandbox worker is gone"


def kill_workers(sandbox: Sandbox) -> None:
    for slot in sandbox._all:
        for worker in slot.workers.values():
            os.kill(worker.process.pid, signal.SIGKILL)
            # What it has started dies after it, and could still serve the next program.
            assert select.select([worker._control], [], [], 30)[0]


# --- Values and objects across the two cells


@pytest.mark.parametrize(
    ("program", "asserts"),
    [
        ("def f(x): return x", [
            f"x = {value}\nassert f(x) == x and type(f(x)) is type(x)" for value in (
                "None", "True", "0", "-7", "10**30", "1.5", "float('inf')", "'é'", "'\\ud800'", "b'\\xff'", "1j", "(1, (2,))",
                "[1, [2]]", "{1: 'a', (2, 3): [4]}", "{1, 2}", "frozenset([1])", "range(3)", "bytearray(b'x')", "...",
                "__import__('collections').Counter('aab')", "__import__('collections').OrderedDict(a=1)",
                "__import__('collections').deque([1], maxlen=2)", "__import__('collections').defaultdict(int, a=1)",
                "__import__('fractions').Fraction(1, 3)", "__import__('decimal').Decimal('0.1')",
                "__import__('datetime').date(2020, 1, 2)", "__import__('datetime').timedelta(1, 2)", "slice(1, 2, None)",
            )
        ]),
        ("def f(x): return x", ["assert f(True) is True", "assert f(None) is None", "assert f(1) == 1.0 == f(True)"]),
        ("def f(x): return x", ["l = [1]\nassert f(l) is l", "l = []\nl.append(l)\nassert f(l) is l"]),
        ("def f(x): x.sort()", ["l = [3, 1, 2]\nassert f(l) is None\nassert l == [1, 2, 3]"]),
        ("def f(m):\n    for r in m: r.reverse()\n    m.append(m[0])", ["m = [[1, 2], [3]]\nr = m[0]\nf(m)\nassert m == [[2, 1], [3], [2, 1]]\nassert m[0] is r and m[2] is r"]),
        ("def f(d, s, b): d['x'] = 1; s.clear(); b += b'!'", ["d, s, b = {}, {1}, bytearray(b'a')\nf(d, s, b)\nassert (d, s, b) == ({'x': 1}, set(), b'a!')"]),
        ("def f(*a, k=2, **o): return a, k, o", ["assert f(1, k=3, z=4) == ((1,), 3, {'z': 4})", "assert f() == ((), 2, {})"]),
        ("def f(g, xs): return [g(x) for x in xs]", ["assert f(lambda x: x * 2, [1, 2]) == [2, 4]", "assert f(str, [1]) == ['1']", "assert f(len, ['ab']) == [2]"]),
        ("def f(n): return lambda x: x + n", ["assert f(2)(3) == 5", "assert list(map(f(1), [1, 2])) == [2, 3]", "assert callable(f(1))"]),
        ("def f(g): return g(lambda x: x + 1)", ["assert f(lambda h: h(h(1))) == 3"]),
        ("def f(n):\n    for i in range(n): yield i", ["assert list(f(3)) == [0, 1, 2]", "assert sum(f(4)) == 6", "g = f(2)\nassert next(g) == 0 and next(g) == 1\ntry:\n    next(g)\n    assert False\nexcept StopIteration: pass", "assert 2 in f(3)"]),
        ("def f(x): return (i * i for i in x)", ["assert list(f(i for i in range(3))) == [0, 1, 4]", "assert list(zip(f([1]), f([2]))) == [(1, 4)]"]),
        ("def f(x): return map(str, x)", ["assert list(f([1, 2])) == ['1', '2']"]),
        ("def f(x):\n    if x < 0: raise ValueError('negative')\n    return {}[x]", ["try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'negative'", "try:\n    f(1)\n    assert False\nexcept KeyError: pass", "try: f('a')\nexcept Exception as e: assert type(e) is TypeError"]),
        ("class Bad(ValueError): pass\ndef f(): raise Bad('x', 1)", ["try:\n    f()\n    assert False\nexcept Bad as e:\n    assert e.args == ('x', 1)", "try: f()\nexcept ValueError: pass"]),
        ("def f(g):\n    try: g()\n    except ZeroDivisionError: return 'caught'", ["assert f(lambda: 1 / 0) == 'caught'"]),
        ("class Stack:\n    kind = 'lifo'\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x); return self\n    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n    def __iter__(self): return iter(self.items)\n    def __getitem__(self, i): return self.items[i]\n    def __contains__(self, x): return x in self.items\n    def __repr__(self): return f'Stack({self.items})'",
         ["s = Stack()\ns.push(1).push(2)\nassert len(s) == 2 and s[0] == 1 and list(s) == [1, 2] and 2 in s\nassert repr(s) == 'Stack([1, 2])' and str(s) == f'{s}'\nassert s.pop() == 2 and s.items == [1] and s\ns.pop()\nassert not s", "assert isinstance(Stack(), Stack) and not isinstance(1, Stack) and Stack.kind == 'lifo'", "s = Stack()\ns.extra = 5\nassert s.extra == 5 and hasattr(s, 'extra') and not hasattr(s, 'nothing')"]),
        ("class V:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return isinstance(o, V) and self.x == o.x\n    def __hash__(self): return hash(self.x)\n    def __add__(self, o): return V(self.x + (o.x if isinstance(o, V) else o))\n    def __mul__(self, k): return V(self.x * k)\n    __rmul__ = __mul__\n    def __lt__(self, o): return self.x < o.x",
         ["assert V(1) + V(2) == V(3)", "assert V(2) * 3 == V(6) == 3 * V(2)", "assert V(1) != V(2) and V(1) != 1", "assert V(1) < V(2)", "assert [v.x for v in sorted([V(3), V(1)])] == [1, 3]", "assert len({V(1), V(1), V(2)}) == 2"]),
        ("class Node:\n    def __init__(self, v, n=None): self.v, self.n = v, n\ndef rev(h):\n    p = None\n    while h: h.n, p, h = p, h, h.n\n    return p",
         ["h = rev(Node(1, Node(2, Node(3))))\nvs = []\nwhile h:\n    vs.append(h.v)\n    h = h.n\nassert vs == [3, 2, 1]"]),
        ("def total(t): return t.v + sum(total(c) for c in t.kids) if t else 0", ["class T:\n    def __init__(self, v, *kids): self.v, self.kids = v, list(kids)\nassert total(T(1, T(2), T(3))) == 6"]),
        ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", ["assert f() == (1, 2) and f().x == 1 and P(3, 4).y == 4"]),
        ("import dataclasses\n@dataclasses.dataclass\nclass D: a: int = 1\ndef f(): return D()", ["assert f() == D() and f().a == 1 and f() is not None"]),
        ("import enum\nclass C(enum.IntEnum): R = 1\nclass S(str): pass\ndef f(): return C.R, S('x')", ["assert f() == (1, 'x')"]),
        ("def f(): return {'a': 1}.keys(), {'a': 1}.values(), {'a': 1}.items()", ["k, v, i = f()\nassert k == {'a'} and list(v) == [1] and list(i) == [('a', 1)]"]),
        ("def f(a, b): return abs(a - b)", ["assert abs(f(1.5, 1) - 0.5) < 1e-9", "import math\nassert math.isclose(f(1, 3), 2)"]),
        ("import math\nTAU = 2 * math.pi\ndef f(r): return TAU * r", ["assert f(1) == TAU == 2 * math.pi"]),
        ("def sum(a, b): return a * 10 + b", ["assert sum(1, 2) == 12", "assert sum(2, 2) == 22"]),
        ("calls = 0\ndef f():\n    global calls\n    calls += 1\n    return calls", ["assert f() == 1", "assert f() == 2 and calls == 2"]),
        ("class M:\n    def __enter__(self): return 7\n    def __exit__(self, *a): return False", ["with M() as x: assert x == 7"]),
        ("if __name__ == '__main__':\n    raise SystemExit(1)\ndef f(): return __name__", ["assert f() == 'solution'"]),
        ("print('to nobody')\ndef f(): return input", ["assert f() is not None"]),
        ("import functools\ndef f(g, x): return g(x)", ["import functools\nassert f(functools.partial(pow, 2), 5) == 32", "assert f(str.upper, 'a') == 'A'"]),
    ],
)  # fmt: skip
def test_honest_programs_pass_as_they_would_in_one_process(held: Held, program: str, asserts: list[str]) -> None:
    result = held.asserts(program, *asserts, scoring="fraction")
    failed = [(text, test) for text, test in zip(asserts, result.tests, strict=True) if test.outcome != "pass"]
    assert not failed
    # The same asserts in one ordinary interpreter: the table itself must hold.
    namespace: dict[str, Any] = {"__name__": "solution"}
    exec(program, namespace)
    for text in asserts:
        exec(text, namespace)


@pytest.mark.parametrize(
    ("program", "text", "reason"),
    [
        ("async def f(): return 1", "import asyncio\nassert asyncio.run(f()) == 1", ""),
        ("class A: pass", "class B(A): pass", "cannot be derived from"),
        ("class A: pass", "import copy\ncopy.deepcopy(A())", "cannot be copied"),
        ("class N:\n    def __sub__(s, o): return 0\ndef f(): return N()", "assert f() - 1 == 0", "'sub' between"),
    ],
)
def test_what_cannot_be_asked_across_cells_is_counted_and_not_passed(
    held: Held, program: str, text: str, reason: str
) -> None:
    result = held.asserts(program, text)
    assert result.value == 0
    assert reason in result.tests[0].reason
    assert result.unsupported == bool(reason)


# --- HumanEval


@pytest.mark.skipif(not HUMANEVAL.exists(), reason=f"no HumanEval at {HUMANEVAL}")
def test_every_canonical_solution_of_humaneval_passes(held: Held) -> None:
    problems = [json.loads(line) for line in HUMANEVAL.read_text().splitlines()]

    async def judge() -> list[CodeResult]:
        responses = [
            whole(problem) if number % 2 else problem["canonical_solution"] for number, problem in enumerate(problems)
        ]
        return await asyncio.gather(
            *(score_code(held.sandbox, text, parse_task(p)) for text, p in zip(responses, problems, strict=True))
        )

    def whole(problem: dict[str, str]) -> str:
        return f"```python\n{problem['prompt']}{problem['canonical_solution']}\n```"

    results = held.runner.run(judge())
    assert len(results) == 164
    assert [p["task_id"] for p, result in zip(problems, results, strict=True) if result.value != 1] == []


def test_the_body_alone_the_function_alone_and_the_whole_file_are_programs(held: Held) -> None:
    prompt = 'from typing import List\n\ndef helper(x):\n    return x + 1\n\ndef f(xs: List[int]) -> int:\n    """Sum of helper."""\n'
    body = "    return sum(map(helper, xs))\n"
    fields = {
        "prompt": prompt,
        "entry_point": "f",
        "test": "def check(f):\n    assert f([1, 2]) == 5\n    assert helper(1) == 2\n",
    }
    responses = [body, prompt + body, f"```python\n{body}```", f"```python\ndef f(xs: List[int]):\n{body}```"]
    assert [held.score(response, **fields).value for response in responses] == [1, 1, 1, 1]
    assert held.score(body.replace("map(helper, xs)", "xs"), **fields).value == 0
