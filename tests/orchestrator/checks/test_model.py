"""Whether the model of a stage is there, whole, and fits: each fault with its key and the way out."""

import json
from pathlib import Path

import pytest

from orchestrator.checks.engine import cpu_head_sizes
from orchestrator.checks.preflight import preflight
from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe
from tests.orchestrator.factories import CONFIG, DOWNLOAD, fault, model_folder, recipe, safetensors

pytestmark = pytest.mark.usefixtures("laptop")

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def test_a_model_folder_that_is_whole_passes(tmp_path: Path) -> None:
    assert preflight(recipe(model={"path": str(model_folder(tmp_path / "m"))})) == []


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


def test_a_head_size_that_an_engine_on_a_cpu_does_not_serve(tmp_path: Path) -> None:
    """It would die at its first request."""
    pytest.importorskip("vllm.v1.attention.backends.cpu_attn", reason="no engine here", exc_type=ImportError)
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert list(cpu_head_sizes()) == CPUAttentionBackend.get_supported_head_sizes()

    def asked(**sizes: int) -> Recipe:
        config = json.dumps({**CONFIG, **sizes}).encode()
        return recipe(model={"path": str(model_folder(tmp_path / str(sizes), config_json=config))})

    assert preflight(asked(hidden_size=128)) == preflight(asked(hidden_size=64, head_dim=64)) == []
    for refused in (asked(hidden_size=64), asked(hidden_size=128, head_dim=48)):
        assert "and engines on a CPU serve 32, 64" in fault(refused)


def test_no_more_ranks_pass_a_pack_together_than_there_are_heads(tmp_path: Path) -> None:
    def asked(heads: int) -> Recipe:
        config = json.dumps({**CONFIG, "num_attention_heads": heads}).encode()
        learner = {"ranks": 4, "sequence_parallel": 4, "cpus": 0.2}
        return recipe(model={"path": str(model_folder(tmp_path / str(heads), config_json=config))}, learner=learner)

    assert "learner.sequence_parallel = 4: ranks divide heads, and the model has 3" in fault(asked(3))
    assert preflight(asked(4)) == []


def test_code_of_a_known_architecture_is_not_needed(tmp_path: Path) -> None:
    config = {**CONFIG, "auto_map": {"AutoModel": "x.Y"}}
    asked = recipe(model={"path": str(model_folder(tmp_path / "m", config_json=json.dumps(config).encode()))})
    assert preflight(asked) == []
    model_folder(tmp_path / "m", config_json=json.dumps({**config, "model_type": "homemade"}).encode())
    assert "runs Python from its own folder" in fault(asked)


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
    assert preflight(recipe()) == [DOWNLOAD]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in fault(recipe())
    (tmp_path / "hf" / "hub" / "models--org--model" / "snapshots" / "0f").mkdir(parents=True)
    assert preflight(recipe()) == []


def test_chat_needs_a_chat_template(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    data = {"sources": {"a": {"task": "arithmetic", "limit": 9}}, "template": "chat"}
    asked = recipe(model={"path": str(folder)}, data=data)
    text = fault(asked)
    assert text.startswith("data.template = 'chat': ")
    assert "use data.template=r1-zero or data.template=plain" in text
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert preflight(asked) == []


@pytest.mark.parametrize(
    ("name", "message"), [("plane", "did you mean 'plain'?"), ("empty.txt", "no {prompt}"), ("none.txt", "no file")]
)
def test_a_template_must_exist_and_take_the_question(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("no question here")
    text = fault(load_recipe("arithmetic", [f"data.template={name}"]))
    assert f"data.template = {name!r}" in text
    assert message in text


EMBEDDING = safetensors((10, 4), "model.embed_tokens.weight")


def vocabulary(ids: dict[str, int] | list[list[object]], *added: int) -> bytes:
    tokens = [{"id": each, "content": f"<{each}>"} for each in added]
    return json.dumps({"model": {"vocab": ids}, "added_tokens": tokens}).encode()


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"tokenizer_json": vocabulary({"a": 0, "b": 10})}, 10),
        ({"tokenizer_json": vocabulary({"a": 0}, 12)}, 12),
        ({"tokenizer_json": vocabulary([["a", -1.0]] * 12)}, 11),
        ({"tokenizer_json": None, "vocab_json": b'{"a": 13}', "merges_txt": b""}, 13),
        ({"tokenizer_config_json": b'{"added_tokens_decoder": {"14": {"content": "<x>"}}}'}, 14),
    ],
)
def test_a_tokenizer_larger_than_the_embedding_is_refused_with_both_numbers(
    files: dict[str, bytes | None], ids: int, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "m", model_safetensors=EMBEDDING, **files)
    text = fault(recipe(model={"path": str(folder)}))
    assert f"ids up to {ids}, the embedding 10 rows (0 to 9)" in text


def test_as_many_ids_as_rows_pass(tmp_path: Path) -> None:
    files = {"model_safetensors": EMBEDDING, "tokenizer_json": vocabulary({"a": 0}, 9)}
    assert preflight(recipe(model={"path": str(model_folder(tmp_path / "m", **files))})) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 12}, "config.json says vocab_size = 12, the embedding has 10 rows"),
        ({"text_config": {"vocab_size": 9}}, "config.json says vocab_size = 9, the embedding has 10 rows"),
        ({"eos_token_id": [3, 10]}, "config.json says eos_token_id = 10, the embedding has 10 rows"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "its weights are quantized (gptq), which can be sampled from and not trained",
        ),
    ],
)
def test_a_config_that_does_not_fit_its_weights(config: dict[str, object], message: str, tmp_path: Path) -> None:
    files = {"model_safetensors": EMBEDDING, "config_json": json.dumps({**CONFIG, **config}).encode()}
    assert message in fault(recipe(model={"path": str(model_folder(tmp_path / "m", **files))}))


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (
            {"temperature": 0.6, "top_p": 0.9},
            "has temperature = 0.6, top_p = 0.9, which transformers does not write back",
        ),
        ({"do_sample": False, "top_k": 20}, "exports will say do_sample = true"),
        ({"pad_token_id": -1}, "exports will leave out pad_token_id"),
        ({"early_stopping": True, "min_p": 0.1}, "exports will leave out early_stopping and say do_sample = true"),
        ({"temperature": 0.0}, "exports will leave out temperature"),
    ],
)
def test_a_generation_config_that_cannot_be_written_back_is_said(
    generation: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "m", generation_config_json=json.dumps(generation).encode())
    (note,) = preflight(recipe(model={"path": str(folder)}))
    assert message in note
    assert preflight(recipe(model={"path": str(folder)}), training=False) == []


@pytest.mark.parametrize(
    "generation",
    [{}, {"do_sample": True, "temperature": 0.6}, {"temperature": 1.0}, {"num_beams": 4, "length_penalty": 2.0}],
)
def test_other_generation_configs_pass(generation: dict[str, object], tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", generation_config_json=json.dumps(generation).encode())
    assert preflight(recipe(model={"path": str(folder)})) == []


def test_a_generation_config_that_does_not_load_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", generation_config_json=b'{"num_return_sequences": 4}')
    assert "num_return_sequences = 4 without do_sample" in fault(recipe(model={"path": str(folder)}))


def test_a_reward_model_is_looked_for_too(tmp_path: Path) -> None:
    def scored_by(path: str) -> Recipe:
        return recipe(rewards={"rubrics": {"default": {"helpful": {"name": "reward_model", "path": path}}}})

    assert "rewards.rubrics.default.helpful.path = 'models/helpful': no folder there" in fault(
        scored_by("models/helpful")
    )
    files = {"model_safetensors": EMBEDDING, "tokenizer_json": vocabulary({"a": 11})}
    model_folder(tmp_path / "models" / "helpful", **files)
    assert "helpful.path = 'models/helpful': the tokenizer has ids up to 11" in fault(scored_by("models/helpful"))
    assert any("org/helpful" in note and "downloaded" in note for note in preflight(scored_by("org/helpful")))
