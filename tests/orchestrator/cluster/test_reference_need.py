"""What a stage opens is what its objective asks for: a reference, and the head of the model.

The orchestrator says it before torch is imported (plan, checks), the learner where it computes (learner/objectives.py).
"""

from pathlib import Path
from typing import Any, get_args

import pytest

from learner.objectives import OBJECTIVES
from learner.spec import ObjectiveName
from orchestrator.cluster.specs import learner_spec
from orchestrator.plan.memory import memory
from tests.learner.specs import learner_spec as spec_of
from tests.orchestrator.factories import model_folder, recipe

PAIRS = {"pairs": {"path": "pairs.jsonl", "chosen_column": "chosen", "rejected_column": "rejected"}}
SOURCES: dict[str, dict[str, Any]] = {"reward_model": PAIRS, "dpo": PAIRS}


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
@pytest.mark.parametrize("kind", get_args(ObjectiveName))
def test_a_reference_is_opened_and_planned_for_exactly_where_the_objective_reads_one(
    tmp_path: Path, kind: ObjectiveName, kl_coef: float, kl_in: str
) -> None:
    sections: dict[str, Any] = {"data": {"sources": SOURCES[kind]}} if kind in SOURCES else {}
    stage = recipe(
        model={"path": str(model_folder(tmp_path / "m"))},
        learner={"kl_coef": kl_coef, "kl_in": kl_in},
        stages=[{"name": "s", "kind": kind}],
        **sections,
    ).stages[0]
    reads = OBJECTIVES[kind].reads_reference(spec_of("m", kl_coef=kl_coef, kl_in=kl_in))
    opened = learner_spec(stage, "m", "r", 7, "cpu")
    assert bool(opened.reference_path) == reads
    assert OBJECTIVES[kind].reads_reference(opened) == reads
    assert ("reference" in memory(stage)) == reads
    assert opened.head == OBJECTIVES[kind].head
