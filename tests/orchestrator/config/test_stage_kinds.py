"""What the kinds of stages do, and that no other place knows them."""

import ast
from pathlib import Path
from typing import get_args

import pytest

import orchestrator
from orchestrator.config.recipe import STAGE_SECTIONS
from orchestrator.config.stage_kinds import STAGE_KINDS, StageKind, kind_named, kind_of
from tests.orchestrator.factories import recipe

FOLDER = Path(orchestrator.__file__).parent
MAY_KNOW = {"config/stage_kinds.py", "pipeline.py"}
"""The table itself, and the map from kinds to pages. The pages in stages/ may know theirs."""


def test_the_kinds_are_those_that_a_recipe_may_name() -> None:
    assert tuple(STAGE_KINDS) == get_args(StageKind)


def test_what_kinds_do() -> None:
    def those(asked: str, value: object = True) -> set[str]:
        return {name for name, kind in STAGE_KINDS.items() if getattr(kind, asked) == value}

    assert those("leaves", "policy") == {"sft", "grpo", "dpo"}
    assert those("leaves", "rows") == {"reject"}
    assert those("leaves", "rewards") == {"reward_model"}
    assert those("learns_from", "pairs") == {"reward_model", "dpo"}
    assert those("samples") == {"grpo", "reject"}
    assert those("is_rl") == {"grpo"}
    assert those("trains") == {"sft", "grpo", "reward_model", "dpo"}
    assert those("generates", False) == {"reward_model"}
    assert those("only_evaluates") == {"eval"}


@pytest.mark.parametrize(("kind", "without_kl", "with_kl"), [("sft", False, False), ("grpo", False, True), ("dpo", True, True)])  # fmt: skip
def test_a_reference_is_loaded_where_the_loss_reads_one(kind: str, without_kl: bool, with_kl: bool) -> None:
    assert (kind_named(kind).needs_reference(0), kind_named(kind).needs_reference(0.1)) == (without_kl, with_kl)


def test_a_stage_has_its_kind_and_a_kind_of_another_version_does_nothing() -> None:
    assert kind_of(recipe().stages[0]) is STAGE_KINDS["grpo"]
    unknown = kind_named("distil")
    assert unknown.words == "distil"
    assert (unknown.leaves, unknown.learns_from) == ("nothing", "nothing")
    assert not unknown.samples
    assert not unknown.only_evaluates


def test_a_kind_that_learns_from_pairs_has_a_section_that_holds_some_out() -> None:
    for name, kind in STAGE_KINDS.items():
        if kind.learns_from == "pairs":
            assert name in STAGE_SECTIONS
            assert getattr(recipe().stages[0], name).held_out == 0


def _named(node: ast.AST) -> set[str]:
    """Kinds that an expression names: one, or those of a list."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {part.value for part in parts if isinstance(part, ast.Constant) and part.value in STAGE_KINDS}


def _says_kind(node: ast.AST, of_stages: bool) -> bool:
    """Whether an expression reads a kind: `stage.kind` or, unless `of_stages`, also `kind` and `entry["kind"]`."""
    names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    if not of_stages:
        names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        names |= {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return "kind" in names


def decisions(tree: ast.AST, of_stages: bool = False) -> list[int]:
    """Lines that decide by the name of a kind: a comparison, a case, or a list or map of several kinds."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = any(map(_named, sides)) and any(_says_kind(side, of_stages) for side in sides)
        elif isinstance(node, ast.Match):
            cases = [part.value for part in ast.walk(node) if isinstance(part, ast.MatchValue)]
            found = any(map(_named, cases)) and _says_kind(node.subject, of_stages)
        elif isinstance(node, ast.Dict):
            found = sum(bool(key and _named(key)) for key in node.keys) > 1
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            found = len(_named(node)) > 1
        else:
            continue
        if found:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "text",
    [
        'stage.kind == "grpo"',
        'kind not in ("sft", "dpo")',
        'entry.get("kind") == "reject"',
        'entry["kind"] == "reject"',
        '{"sft": 1, "dpo": 2}[kind]',
        'match stage.kind:\n    case "eval":\n        pass',
    ],
)
def test_a_decision_by_the_name_of_a_kind_is_found(text: str) -> None:
    assert decisions(ast.parse(text)) != []


def test_nobody_else_decides_by_the_name_of_a_kind() -> None:
    found = []
    for file in sorted(FOLDER.rglob("*.py")):
        place = file.relative_to(FOLDER).as_posix()
        if place in MAY_KNOW or place.startswith("stages/"):
            continue
        # In run/ and tracking/ a bare `kind` is that of a line of metrics.jsonl.
        lines = decisions(
            ast.parse(file.read_text(encoding="utf-8")), of_stages=place.startswith(("run/", "tracking/"))
        )
        found += [f"orchestrator/{place}:{line}" for line in lines]
    assert not found, f"ask a property of kind_of(stage) (config/stage_kinds.py), not its name: {', '.join(found)}"
