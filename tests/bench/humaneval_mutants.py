"""Mutants of HumanEval's canonical solutions that its tests do not tell from the original.

    python -m tests.bench.humaneval_mutants [PATH/HumanEval.jsonl] [--slots 2]

Every place in a solution where a return value, a number, an operator or a branch can be changed gives one mutant. Each is
judged like a response. What passes is either equivalent to the original or shows what the tests do not look at; the list
with the reason of each is in `deploy/bench/humaneval-mutants.md`.
"""

import argparse
import ast
import asyncio
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.code.score import CodeResult, score_code
from rewards.code.tasks import CodeTask, parse_task
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Limits

DEFAULT = Path(__file__).parents[2].parent / "shared" / "data" / "humaneval" / "HumanEval.jsonl"

_SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    task_id: str
    kind: str
    line: int
    """Of the whole program."""
    before: str
    after: str
    program: str


def mutants(task_id: str, prompt: str, solution: str, entry_point: str) -> Iterator[Mutant]:
    """All mutants of one solution that differ from it as syntax. Helpers of the prompt are left alone."""
    tree = ast.parse(prompt + solution)
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == entry_point)
    for index, node in enumerate(ast.walk(function)):
        for kind, change in changes(node):
            mutated = copy.deepcopy(tree)
            copied = next(n for n in mutated.body if isinstance(n, ast.FunctionDef) and n.name == entry_point)
            target = list(ast.walk(copied))[index]
            replaced = change(target)
            program = ast.unparse(ast.fix_missing_locations(_Replace(target, replaced).visit(mutated)))
            if program != ast.unparse(tree):
                line = getattr(node, "lineno", 0)
                yield Mutant(task_id, kind, line, ast.unparse(node), ast.unparse(replaced), program)


Change = Callable[[Any], ast.AST]


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What can be changed at a node, and how. A change gets a copy of the node."""
    if isinstance(node, ast.Return) and node.value is not None:
        yield "return value", _return_none
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "off by one", lambda n: ast.Constant(n.value + 1)
        yield "off by one", lambda n: ast.Constant(n.value - 1)
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _SWAPPED:
        yield "operator", _swap_operator
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPPED:
        yield "operator", _swap_comparison
    if isinstance(node, ast.If):
        yield "branch", lambda n: ast.If(ast.Constant(False), n.body, n.orelse)
        yield "branch", lambda n: ast.If(ast.Constant(True), n.body, n.orelse)
    if isinstance(node, ast.IfExp):
        yield "branch", lambda n: n.body
        yield "branch", lambda n: n.orelse


def _return_none(node: ast.Return) -> ast.AST:
    return ast.Return(ast.Constant(None))


def _swap_operator(node: Any) -> ast.AST:
    node.op = _SWAPPED[type(node.op)]()
    return node  # type: ignore[no-any-return]


def _swap_comparison(node: ast.Compare) -> ast.AST:
    node.ops[0] = _SWAPPED[type(node.ops[0])]()
    return node


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self._target = target
        self._replacement = replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self._replacement if node is self._target else self.generic_visit(node)


async def judge(sandbox: Sandbox, problems: list[dict[str, Any]]) -> list[tuple[Mutant, CodeResult]]:
    limits = Limits(test_s=3, total_s=3)
    tasks: dict[str, CodeTask] = {problem["task_id"]: parse_task(problem, limits) for problem in problems}
    every = [
        mutant
        for problem in problems
        for mutant in mutants(
            problem["task_id"], problem["prompt"], problem["canonical_solution"], problem["entry_point"]
        )
    ]
    results = await asyncio.gather(*(score_code(sandbox, mutant.program, tasks[mutant.task_id]) for mutant in every))
    return list(zip(every, results, strict=True))


async def difference(sandbox: Sandbox, mutant: Mutant, problem: dict[str, Any]) -> list[str] | None:
    """An input that the tests do not have, the original's answer and the mutant's; None when none turned up."""
    order = {
        "original": problem["prompt"] + problem["canonical_solution"],
        "mutant": mutant.program,
        "test": problem["test"],
        "entry_point": problem["entry_point"],
    }
    seeking = Path(__file__).with_name("seek_difference.py").read_text()
    (run,) = await sandbox.run_inputs(seeking, [json.dumps(order).encode()], Limits(test_s=20))
    found: list[str] | None = (
        json.loads(run.stdout) if run.outcome == "exited" and run.code == 0 else [run.reason, "", run.outcome]
    )
    return found


def show(mutant: Mutant, found: list[str] | None) -> str:
    changed = f"`{' '.join(mutant.before.split())[:60]}` → `{' '.join(mutant.after.split())[:60]}`"
    if found is None:
        return f"{mutant.task_id.removeprefix('HumanEval/')} | {mutant.line} | {changed} | "
    arguments, original, mutated = (text if len(text) <= 60 else text[:57] + "..." for text in found)
    return f"{mutant.task_id.removeprefix('HumanEval/')} | {mutant.line} | {changed} | `{arguments}`: {original}, mutant {mutated}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--slots", type=int, default=2)
    options = parser.parse_args()
    problems = [json.loads(line) for line in options.path.read_text().splitlines()]
    began = time.perf_counter()
    async with Sandbox(slots=options.slots) as sandbox:
        judged = await judge(sandbox, problems)
        seconds = time.perf_counter() - began
        passed = [mutant for mutant, result in judged if result.value == 1]
        by_id = {problem["task_id"]: problem for problem in problems}
        differences = await asyncio.gather(*(difference(sandbox, mutant, by_id[mutant.task_id]) for mutant in passed))
    counts: dict[str, int] = {}
    for _, result in judged:
        how = result.tests[0].outcome if result.tests else result.status
        counts[how] = counts.get(how, 0) + 1
    print(f"{len(judged)} mutants of {len(problems)} problems in {seconds:.0f} s: {counts}")
    for title, told_apart in (("not told apart by its tests", True), ("no difference found", False)):
        rows = [show(m, d) for m, d in zip(passed, differences, strict=True) if (d is not None) == told_apart]
        print(f"\n{len(rows)} {title}:", *rows, sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
