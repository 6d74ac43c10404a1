"""Published sets through the reward service as an evaluation uses it; only the completions are written beforehand."""

import asyncio
import json
from pathlib import Path

from tests.bench.gold_evaluation import FILES, gold_evaluation, gold_stage
from tests.rollout.data.test_known_sets import ROWS


def test_published_answers_and_programs_are_right(
    cluster: None, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    # Completions of the other sets are written and scored in tests/rollout/data/test_known_sets.py.
    for name in FILES:
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROWS[name]) + "\n")
    stage = gold_stage({name: str(tmp_path / f"{name}.jsonl") for name in FILES})
    results = {each.set: each for each in loop.run_until_complete(asyncio.wait_for(gold_evaluation(stage), 200))}
    assert {name: (each.greedy, each.pass_at_1, each.unscored) for name, each in results.items()} == dict.fromkeys(
        FILES, (1.0, 0.5, 0)
    )
    assert {name: each.cons_at_k for name, each in results.items()} == {
        "gsm8k": 1.0,
        "aime24": 1.0,
        "amc23": 1.0,
        "humaneval": None,  # programs cannot be counted
    }
    code = results["humaneval"]
    assert code.labels == {"code_tests": 1.0, "format": 1.0}
    assert code.metrics == {
        "code_tests.passed_share": 1.0,
        "code_tests.unsupported": 0.0,
        "code_tests.missing_package": 0.0,
    }
