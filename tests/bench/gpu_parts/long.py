"""Packs of one long sequence, forward and backward, at 1.5B: time and peak memory."""

from tests.bench.gpu_parts.bench import Bench

LENGTHS = {"32k": 32_768, "64k": 65_536}


def run(bench: Bench) -> None:
    if bench.case:
        run_case(bench)
        return
    from tests.bench.gpu_parts.models import model_folder

    model_folder(bench, "1.5b")
    for case in LENGTHS:
        bench.apart(case, limit_s=60 * (4 if bench.tiny else 1))
    assert bench.figures["32k"].get("peak_gb"), "the 32k pack gave no figure"


def run_case(bench: Bench) -> None:
    from tests.bench.gpu_parts import training

    tokens = LENGTHS[bench.case] // (64 if bench.tiny else 1)
    rank = training.open_rank(bench, "1.5b", activation_checkpointing=True, zero_stage=1)
    batch = training.random_batch(
        bench, "1.5b", prompts=1, group=1, prompt_tokens=64, completion_tokens=tokens - 64, pack_tokens=tokens
    )
    bench.record(**training.measure(bench, rank, batch, steps=1))
