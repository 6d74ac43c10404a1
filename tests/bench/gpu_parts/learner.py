"""Training steps of a 1.5B Qwen2 with packs of 16k tokens. Aim: 45 % of the card's measured matrix rate."""

from tests.bench.gpu_parts.bench import Bench

CASES = {
    "no checkpointing": {"activation_checkpointing": False, "zero_stage": 1},
    "checkpointing": {"activation_checkpointing": True, "zero_stage": 1},
    "checkpointing, ZeRO 0": {"activation_checkpointing": True, "zero_stage": 0},
}
CASE_S = 120
"""Seconds of one case: 20 to open the model, 40 to compile its layers, the steps, a profile."""
AIM = 45.0
"""Percent of the matrix rate."""


def run(bench: Bench) -> None:
    if bench.case:
        run_case(bench)
        return
    from tests.bench.gpu_parts.models import model_folder

    (bench.out / "learner-profile.txt").unlink(missing_ok=True)
    model_folder(bench, "1.5b")
    for case in CASES:
        bench.apart(case, limit_s=CASE_S * (4 if bench.tiny else 1))
    reached = max((figures.get("mfu_percent", 0.0) for name, figures in bench.figures.items() if name in CASES))
    bench.record(best_mfu_percent=reached, aim_percent=AIM)
    assert reached, "no case gave a figure"


def run_case(bench: Bench) -> None:
    from tests.bench.gpu_parts import training

    size = (
        {"prompts": 2, "group": 4, "prompt_tokens": 32, "completion_tokens": 56, "pack_tokens": 256}
        if bench.tiny
        else {"prompts": 4, "group": 8, "prompt_tokens": 384, "completion_tokens": 2000, "pack_tokens": 16_384}
    )
    rank = training.open_rank(bench, "1.5b", **CASES[bench.case])
    batch = training.random_batch(bench, "1.5b", **size)
    bench.record(**training.measure(bench, rank, batch, steps=3))
    one = training.random_batch(bench, "1.5b", **{**size, "prompts": 1})
    bench.record(profile=training.profile(bench, rank, one, bench.case, bench.out / "learner-profile.txt"))
