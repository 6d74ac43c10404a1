"""What does not fit into a GPU is refused before anything starts, with settings that would; the shipped recipes fit."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.gpu_memory import check_gpu_memory
from orchestrator.cli import run
from orchestrator.config.load import RECIPES, load_recipe
from orchestrator.plan import machine
from orchestrator.plan.gpu_memory import learner_gpu
from rollout.errors import InputError
from tests.orchestrator.factories import NEEDED, decoder_folder, recipe, write_rows

QWEN_7B = {"hidden": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "intermediate": 18_944, "vocab": 152_064}
QWEN_1_5B = {"hidden": 1536, "layers": 28, "heads": 12, "kv_heads": 2, "intermediate": 8960, "vocab": 151_936}
H100 = "NVIDIA H100 80GB HBM3, 81559 MiB"

pytestmark = pytest.mark.usefixtures("laptop")


@pytest.fixture
def large(tmp_path: Path) -> str:
    return str(decoder_folder(tmp_path / "7b", **QWEN_7B, tied=False))


@pytest.fixture
def small(tmp_path: Path) -> str:
    return str(decoder_folder(tmp_path / "1.5b", **QWEN_1_5B, tied=True))


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, name: str = H100, host_bytes: int = 1 << 40) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: (name,) * count)
    monkeypatch.setattr(machine, "memory_bytes", lambda: host_bytes)


def gsm8k(model: str, *settings: str) -> list[str]:
    """Notes about the shipped recipe; or raises."""
    return check_gpu_memory(load_recipe("gsm8k", [f"model.path={model}", *settings]), training=True)


def refusal(model: str, *settings: str) -> str:
    with pytest.raises(InputError) as caught:
        gsm8k(model, *settings)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


@pytest.mark.parametrize("name", ["r1", "r1-zero"])
def test_the_shipped_recipes_fit_the_node_that_they_name(
    name: str, large: str, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 8)
    asked = [each.replace("org/model", large).replace("org/student", small) for each in NEEDED[name]]
    shipped = load_recipe(name, asked)
    assert check_gpu_memory(shipped, training=True) == []
    assert "node of eight 80 GB GPUs" in (RECIPES / f"{name}.toml").read_text()
    for stage in shipped.stages:
        engines = 0 if stage.rollout.share_gpus is True else stage.rollout.replicas
        assert engines + stage.learner.ranks == 8
    # Half of the memory is not enough, so the estimate does see them.
    gpus(monkeypatch, 8, "NVIDIA A100-SXM4-40GB, 40960 MiB")
    with pytest.raises(InputError):
        check_gpu_memory(shipped, training=True)


def test_the_command_shows_the_bytes_before_it_refuses(
    large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus(monkeypatch, 8)
    monkeypatch.setattr(machine, "engine_package", lambda: "vllm")
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(40)]
    for half, part in (("train", rows[:32]), ("test", rows[32:])):
        write_rows(tmp_path / "gsm8k" / f"{half}.jsonl", part)
    assert run(["check", "gsm8k", f"model.path={large}"]) == 2
    told = capsys.readouterr()
    assert "memory  about 210 GB of a rank's GPU while it trains (learner 152 GB, reference 15.2 GB" in told.out
    assert "a learner rank needs about 210 GB of a GPU of 85.5 GB" in told.err
    assert run(["check", "gsm8k", f"model.path={large}", "learner.lora_rank=32"]) == 0
    assert "of a rank's GPU while it trains (frozen base 15.2 GB" in capsys.readouterr().out


def test_what_cannot_fit_is_refused_with_what_would(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 8)
    text = refusal(large)
    assert text.startswith("stage reasoning: a learner rank needs about 210 GB of a GPU of 85.5 GB (learner 152 GB")
    assert "reference 15.2 GB, activations 42 GB" in text
    assert "there is room with learner.lora_rank=32, or learner.ranks=3 learner.zero_stage=3 learner.act" in text


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        (["learner.ranks=4", "learner.zero_stage=3"], ["learner.activation_checkpointing=true"]),
        (["learner.ranks=4", "learner.activation_checkpointing=true"], ["learner.zero_stage=2"]),
        (
            ["learner.activation_checkpointing=true"],
            ["learner.ranks=3 learner.zero_stage=3", "learner.offload_optimizer=true learner.zero_stage=2"],
        ),
        (
            [
                *("model.max_tokens=131072", "rollout.max_tokens=130560", "learner.ranks=4", "learner.zero_stage=3"),
                "learner.activation_checkpointing=true",
            ],
            ["learner.sequence_parallel=4"],
        ),
        (["learner.lora_rank=16", "learner.micro_batch_tokens=32768"], ["learner.micro_batch_tokens=8192"]),
        (
            ["model.max_tokens=131072", "rollout.max_tokens=130560", "learner.lora_rank=8"],
            ["learner.activation_checkpointing=true", "rollout.max_tokens=8160"],
        ),
    ],
)
def test_ways_out_are_those_that_a_user_would_take_and_hold(
    settings: list[str], ways: list[str], large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 8)
    text = refusal(large, *settings)
    for way in ways:
        assert way in text
        changed = {each.split("=")[0]: each for each in [*settings, *way.split()]}
        assert gsm8k(large, *changed.values()) == [], "what is proposed has room"


@pytest.mark.parametrize(
    ("count", "ways"),
    [
        (
            1,
            [
                "learner.lora_rank=32",
                "learner.offload_optimizer=true learner.zero_stage=2 learner.activation_checkpointing=true",
            ],
        ),
        (4, ["learner.lora_rank=32", "learner.ranks=3 learner.zero_stage=3 learner.activation_checkpointing=true"]),
    ],
)
def test_whoever_brings_seven_billion_parameters_is_told_all_that_must_be_set(
    count: int, ways: list[str], large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    said = refusal(large).partition("there is room with ")[2].split(", or ")
    assert set(ways) <= set(said)
    for way in said:
        assert gsm8k(large, *way.split()) == []


def test_an_optimizer_moves_to_a_host_that_has_room_for_it(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1, host_bytes=64 << 30)
    assert "offload_optimizer" not in refusal(large)
    settings = ["offload_optimizer=true", "zero_stage=2", "activation_checkpointing=true"]
    (note,) = gsm8k(large, *(f"learner.{each}" for each in settings))
    assert note == (
        "stage reasoning: learner.offload_optimizer = true keeps about 91.4 GB in this machine's memory, which is 68.7 GB"
    )


def test_a_second_copy_of_the_parameters_takes_memory(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 8)
    asked = ["learner.ranks=8", "learner.zero_stage=3", "learner.activation_checkpointing=true"]
    stages = [
        load_recipe("gsm8k", [f"model.path={large}", *asked, *more]).stages[0]
        for more in ([], ["learner.zero_hpz_partition_size=4"])
    ]
    plain, copied = (sum(learner_gpu(stage, 1024).values()) for stage in stages)
    assert copied - plain == pytest.approx(2 * 15.2e9 / 4, rel=0.01), "of the model, and of its reference"


def test_a_rank_that_no_setting_makes_fit_says_so(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1, "NVIDIA T4, 15360 MiB")
    assert refusal(large).endswith("lower model.max_tokens, take a smaller model, or join a cluster: --address")


def test_a_tight_fit_is_a_note(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    settings = ["learner.zero_stage=1", "learner.micro_batch_tokens=20480"]
    (note,) = gsm8k(small, *settings)
    assert note.startswith("stage reasoning: a learner rank is a tight fit: about 80.1 GB of 85.5 GB")
    assert "there is room with learner.activation_checkpointing=true" in note
    assert gsm8k(small, *settings, "learner.micro_batch_tokens=8192") == []


def test_an_engine_that_shares_is_counted_beside_its_rank(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1, "NVIDIA L40S, 46068 MiB")
    small_packs = ["learner.micro_batch_tokens=36864", "learner.activation_checkpointing=true"]
    (note,) = gsm8k(small, *small_packs)
    assert "a learner rank is a tight fit" in note
    gpus(monkeypatch, 2, "NVIDIA L40S, 46068 MiB")
    assert gsm8k(small, *small_packs) == [], "with a GPU each there is room"


def test_an_engine_must_hold_its_weights(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4, "NVIDIA A10, 23028 MiB")
    checked = load_recipe("gsm8k", [f"model.path={large}", "rollout.gpu_memory=0.5"])
    with pytest.raises(InputError, match=r"engine needs about 15\.3 GB .* \(rollout\.gpu_memory = 0\.5 of 24\.1 GB\)"):
        check_gpu_memory(checked, training=False)
    parallel = load_recipe("gsm8k", [f"model.path={large}", "rollout.gpu_memory=0.5", "rollout.tensor_parallel=2"])
    assert check_gpu_memory(parallel, training=False) == []


def test_long_examples_are_a_note_since_they_may_not_come(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 8)
    settings: dict[str, Any] = {"ranks": 4, "zero_stage": 3, "activation_checkpointing": True}
    checked = recipe(
        model={"path": large, "max_tokens": 131072},
        data={"sources": {"a": {"path": "a.jsonl", "messages_column": "messages"}}},
        learner=settings,
        stages=[{"name": "tune", "kind": "sft"}],
    )
    (note,) = check_gpu_memory(checked, training=True)
    assert "stage tune: a learner rank has memory for packs of" in note
    assert "its data may have longer ones, up to 131,072 (model.max_tokens)" in note


@pytest.mark.parametrize("name", ["NVIDIA H100", "NVIDIA GB10, [N/A]"])
def test_a_driver_that_does_not_say_its_memory_is_believed(
    name: str, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 8, name)
    assert gsm8k(large) == []
