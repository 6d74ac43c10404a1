"""What all forms have in common: which one a file is, secrets, hostile text, and keys that exist."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from orchestrator.cli import app, run
from orchestrator.config.load import load_recipe
from orchestrator.convert.forms import convert_text
from orchestrator.convert.settings import shown
from rollout.errors import InputError
from tests.orchestrator.convert import test_openrlhf, test_trl, test_verl
from tests.orchestrator.convert.reading import Converted

ALL = {
    "trl-math": test_trl.MATH, "trl-reused": test_trl.REUSED, "trl-small": test_trl.SMALL,
    "verl-grpo": test_verl.GRPO, "verl-dapo": test_verl.DAPO, "verl-ppo": test_verl.PPO, "verl-yaml": test_verl.YAML,
    "openrlhf-groups": test_openrlhf.GROUPS, "openrlhf-ppo": test_openrlhf.REWARD_MODEL, "openrlhf-dotted": test_openrlhf.DOTTED,
}  # fmt: skip
EXPLICIT = [
    "learner.lr",
    "learner.schedule",
    "learner.beta1",
    "learner.beta2",
    "learner.weight_decay",
    "learner.max_grad_norm",
    "learner.mini_batches",
    "learner.kl_coef",
    "learner.clip_low",
    "learner.clip_high",
    "learner.length_norm",
    "learner.policy_loss",
    "learner.advantage_baseline",
    "learner.advantage_scale",
    "learner.importance_cap",
    "learner.zero_stage",
    "learner.activation_checkpointing",
    "rollout.group_size",
    "rollout.temperature",
    "rollout.max_tokens",
    "data.max_prompt_tokens",
    "data.template",
    "loop.groups_per_step",
    "loop.steps",
    "loop.checkpoint_every",
    "model.max_tokens",
]


@pytest.mark.parametrize("name", ALL)
def test_what_decides_the_training_is_written_out(name: str) -> None:
    made = Converted(ALL[name])
    assert [key for key in EXPLICIT if not made.written(key)] == []


@pytest.mark.parametrize("name", ALL)
def test_every_setting_is_taken_or_told(name: str) -> None:
    """Each is behind a key, or has a line of its own."""
    made = Converted(ALL[name])
    names = [setting.name for setting in made.draft._settings.all()]
    assert len(names) > 4
    assert [name for name in names if not re.search(rf"# +{re.escape(name)}( = |: |$)", made.toml, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; read are: a TRL GRPOConfig YAML"),
        ("beta: 0\0", "signs that no text has; read are"),
        ("beta: 0\nx: \x01", "signs that no text has; read are"),
        ("beta: 0\nmax_steps: 2026-11-27", 'max_steps = "2026-11-27": not a number'),
        ("hello world", "no table of settings; read are"),
        ("a: 1\nb: 2\n", "a YAML with a, b: of none of the trainers that are read; read are"),
        ("[1, 2]", "no table of settings; read are"),
        ("python3 train.py --lr 1e-5", "no table of settings; read are"),
        ("deepspeed --module openrlhf.cli.train_dpo --beta 0.1", "openrlhf.cli.train_dpo is not read; read are"),
        ("python3 -m verl.trainer.main_generation a=1", "verl.trainer.main_generation is not read; read are"),
        ("python3 -m verl.trainer.main_ppo a.b='1", "a ' is not closed"),
        (
            "python3 -m verl.trainer.main_ppo a.b=1\npython3 -m verl.trainer.main_ppo a.b=2",
            "lines 1, 2 start a training each",
        ),
        ("a: &a [x]\nb: " + "[" * 3000, "not valid YAML"),
    ],
)
def test_what_is_not_read_is_told_with_what_is(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert_text("f", text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_few_lines_that_are_billions_of_values_are_refused() -> None:
    lines = ["beta: 0", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InputError, match="more than 100,000 values"):
        convert_text("f", "\n".join(lines))


SECRETS = [
    "python3 -m openrlhf.cli.train_ppo_ray --pretrain /m --n_samples_per_prompt 4 --use_wandb S3CRET",
    "python3 -m openrlhf.cli.train_ppo_ray --pretrain /m --n_samples_per_prompt 4 --use_wandb=S3CRET --wandb_org me",
    "python3 -m openrlhf.cli.train_ppo_ray --actor.model_name_or_path /m --rollout.n_samples_per_prompt 4 --logger.wandb.key S3CRET",
    "python3 -m openrlhf.cli.train_ppo_ray --pretrain /m --n_samples_per_prompt 4 --remote_rm_url http://me:S3CRET@host:5000/r",
    "python3 -m openrlhf.cli.train_ppo_ray --pretrain /m --n_samples_per_prompt 4 --remote_rm_url 'http://host/r?api_key=S3CRET'",
    "export WANDB_API_KEY=S3CRET\npython3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 +trainer.wandb_key=$WANDB_API_KEY",
    "python3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 +ray_init.runtime_env.env_vars.HF_TOKEN=S3CRET",
    "python3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 trainer.experiment_name=hf_S3CRETS3CRETS3CRET",
    "MY_TOKEN=S3CRET\npython3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 trainer.notes=$MY_TOKEN",
    "python3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 trainer.notes=${WANDB_API_KEY:-S3CRET}",
    "python3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 trainer.notes=a-$OF_THE_ENVIRONMENT_TOKEN",
    "ray job submit --runtime-env-json='{\"env_vars\": {\"KEY\": \"S3CRET\"}}' -- python3 -m openrlhf.cli.train_ppo_ray --n_samples_per_prompt 2",
    "python3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 custom_reward_function.path=r.py +custom_reward_function.reward_kwargs.api_key=S3CRET",
    "python3 -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=2 data.train_files=https://me:S3CRET@host/d.parquet",
    "beta: 0\nheaders: 'Bearer S3CRET'",
    "beta: 0\nhub_token: S3CRET",
    "beta: 0\npush_to_hub_token: S3CRET\nenv: {WANDB_API_KEY: S3CRET, MINE: S3CRET}",
    "beta: 0\nmodel_init_kwargs: {token: S3CRET, other: [{password: S3CRET}]}",
    "beta: 0\nwandb_password: S3CRET",
    "beta: 0\nreport_to: [sk-S3CRETS3CRETS3CRET]",
    "trl grpo --model_name_or_path m --beta 0 --hub_token S3CRET",
]  # fmt: skip


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_never_written_out(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_ENVIRONMENT_TOKEN", "S3CRET")
    file = tmp_path / "run"
    file.write_text(text, encoding="utf-8")
    assert run(["convert", str(file)]) == 0
    told = capsys.readouterr()
    assert "S3CRET" not in told.out + told.err
    assert "s3cret" not in told.out + told.err


@pytest.mark.parametrize(
    "text", ["beta: 0\nnum_generations: x\nhub_token: S3CRET", "beta: 0\nhub_token: {S3CRET", "hub_token: S3CRET"]
)
def test_secrets_are_in_no_message(text: str) -> None:
    with pytest.raises(InputError) as caught:
        convert_text("f", text)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_batched_tokens", 8192),
        ("data.tokenizer", "a/b"),
        ("label_key", "gold"),
        ("eos_token", "<end>"),
        ("model_revision", "0" * 40),
    ],
)
def test_what_only_sounds_like_a_secret_is_told(name: str, value: object) -> None:
    assert str(value) in shown(name, value)


HOSTILE = 'x"\n[cluster]\nenv = { A = "1" }\n# \x1b[31m\u202e'


def test_text_of_the_source_stays_text() -> None:
    values = {
        "beta": 0,
        "dataset_name": HOSTILE,
        "model_name_or_path": HOSTILE,
        "run_name": HOSTILE,
        "odd": HOSTILE,
        HOSTILE: 1,
    }
    draft = convert_text("f.yaml", json.dumps(values))
    toml = draft.toml(f"from {HOSTILE}")
    raw = tomllib.loads(toml)
    assert "cluster" not in raw
    assert raw["model"]["path"] == HOSTILE
    assert all(sign.isprintable() or sign == "\n" for sign in toml)


def test_the_command_writes_a_recipe_and_says_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "math.yaml", tmp_path / "new" / "mine.toml"
    source.write_text(test_trl.MATH.replace("Qwen/Qwen2.5-7B", str(tmp_path / "none")), encoding="utf-8")
    assert run(["convert", str(source), "-o", str(target)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "256 completions a batch (16 groups × 16); 200 batches are 200 optimizer steps" in told.err
    assert "no folder there" in told.err
    assert f"rayzero check {target}" in told.err
    assert load_recipe(str(target)).stages[0].rollout.group_size == 16


def test_the_command_reads_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.write_text(test_verl.PPO, encoding="utf-8")
    with source.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert run(["convert", "-", "--rows", "512", "--processes", "4"]) == 0
    told = capsys.readouterr()
    raw = tomllib.loads(told.out)
    assert (raw["loop"]["steps"], raw["learner"]["ranks"]) == (4, 4)
    assert "standard input (verl)" in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["a.yaml", "-o", "a.yaml"], "is FILE itself"),
        (["a.yaml", "--trl-version", "new"], "give a version from 0.14 on"),
        (["binary"], "not text in UTF-8"),
        (["hot.yaml"], "the recipe that it makes is refused: .*temperature"),
    ],
)
def test_mistakes_of_the_command(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(test_trl.SMALL, encoding="utf-8")
    (tmp_path / "hot.yaml").write_text(f"{test_trl.SMALL}temperature: 3", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert run(["convert", *arguments]) == 2
    told = capsys.readouterr()
    assert re.search(message, told.err)
    assert told.out == ""


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("run.yaml", "model_name_or_path: m\ndataset_name: d\nreward_funcs: accuracy_reward\nnum_generations: 8\nnum_processes: 1\n"
         "max_steps: 8\noutput_dir: out\n", "output_dir"),
        ("run.sh", "python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo trainer.total_training_steps=8 "
         "actor_rollout_ref.rollout.n=8 data.train_files=d.parquet actor_rollout_ref.model.path=m "
         "trainer.default_local_dir=out\n", "trainer.default_local_dir"),
        ("run.sh", "python3 -m openrlhf.cli.train_ppo_ray --pretrain m --prompt_data d.jsonl --advantage_estimator group_norm "
         "--n_samples_per_prompt 8 --remote_rm_url http://127.0.0.1:5000/r --save_path out\n", "save_path"),
    ],
)  # fmt: skip
def test_the_option_that_is_named_for_the_folder_of_a_run_is_one_of_train(file: str, text: str, name: str) -> None:
    comment = Converted(text, file=file, rows=64).comment(name)
    named = re.findall(r"--[a-z-]+", comment)
    options = [option for each in get_command(app).commands["train"].params for option in each.opts]  # type: ignore[attr-defined]
    assert named, comment
    assert set(named) <= set(options), comment
