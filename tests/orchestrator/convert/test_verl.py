"""verl's command and YAML: batches in prompts, estimators, KL, places, and what has no counterpart."""

from pathlib import Path

import pytest

from rollout.errors import InputError
from tests.orchestrator.convert.reading import Converted, rows_file

GRPO = r"""
set -x
# a run on one node
DATA=$HOME/sums
export VLLM_USE_V1=1
batch=512

python3 -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    data.train_files=$DATA/train.parquet \
    data.val_files="['$DATA/a.parquet', '$DATA/b.parquet']" \
    data.train_batch_size=$batch \
    data.max_prompt_length=512 \
    data.max_response_length=$((512 * 4)) \
    data.filter_overlong_prompts=True \
    actor_rollout_ref.model.path=${MODEL:-Qwen/Qwen2.5-3B-Instruct} \
    actor_rollout_ref.actor.optim.lr=2e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 \
    actor_rollout_ref.actor.use_kl_loss=True \
    actor_rollout_ref.actor.kl_loss_coef=0.002 \
    actor_rollout_ref.actor.kl_loss_type=low_var_kl \
    actor_rollout_ref.actor.fsdp_config.param_offload=False \
    actor_rollout_ref.actor.fsdp_config.optimizer_offload=True \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.7 \
    +actor_rollout_ref.rollout.engine_kwargs.vllm.seed=3 \
    trainer.logger='["console","wandb"]' \
    trainer.experiment_name='sums_3b' \
    trainer.n_gpus_per_node=4 \
    trainer.nnodes=2 \
    trainer.save_freq=20 \
    trainer.test_freq=10 \
    trainer.total_training_steps=60 $@ 2>&1 | tee log.txt
"""
DAPO = r"""
len=$((1024 * 8))
ARGS=(
    data.train_files="/data/dapo-math-17k.parquet"
    data.train_batch_size=64   # prompts
    data.max_prompt_length=2048
    data.max_response_length=${len}
    algorithm.adv_estimator=grpo
    algorithm.filter_groups.enable=true
    algorithm.filter_groups.metric=acc
    actor_rollout_ref.actor.clip_ratio_low=0.2
    actor_rollout_ref.actor.clip_ratio_high=0.28
    actor_rollout_ref.actor.loss_agg_mode="token-mean"
    actor_rollout_ref.actor.ppo_mini_batch_size=32
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480
    actor_rollout_ref.actor.optim.lr_warmup_steps=10
    actor_rollout_ref.actor.optim.weight_decay=0.1
    actor_rollout_ref.rollout.n=16
    actor_rollout_ref.rollout.tensor_model_parallel_size=4
    actor_rollout_ref.model.path=/models/base
    reward_model.reward_manager=dapo
    +reward_model.overlong_buffer.enable=True
    +reward_model.overlong_buffer.len=4096
    +reward_model.overlong_buffer.penalty_factor=1.0
    trainer.total_training_steps=100
)
python3 -m recipe.dapo.main_dapo "${ARGS[@]}"
"""
PPO = r"""
PYTHONUNBUFFERED=1 python3 -m verl.trainer.main_ppo \
 data.train_files=train.parquet \
 data.train_batch_size=256 \
 data.max_prompt_length=512 data.max_response_length=256 \
 actor_rollout_ref.model.path=/models/small \
 actor_rollout_ref.actor.ppo_mini_batch_size=64 \
 critic.optim.lr=1e-5 critic.model.path=/models/small \
 algorithm.kl_ctrl.kl_coef=0.001 algorithm.use_kl_in_reward=True \
 custom_reward_function.path=/data/reward.py custom_reward_function.name=score \
 +custom_reward_function.reward_kwargs.limit=400 \
 trainer.n_gpus_per_node=1 trainer.total_epochs=2
"""
YAML = """
defaults: [ppo_trainer, _self_]
data:
  train_files: [one.parquet, two.parquet]
  train_batch_size: 128
  max_prompt_length: 1024
  max_response_length: 3072
  prompt_key: question
algorithm:
  adv_estimator: rloo
actor_rollout_ref:
  model:
    path: ~/models/qwen
    lora_rank: 32
    lora_alpha: 64
    target_modules: all-linear
  actor:
    ppo_mini_batch_size: ${data.train_batch_size}
    ppo_epochs: 2
    loss_agg_mode: seq-mean-token-mean
    clip_ratio_c: 10.0
    optim: {lr: 1e-5, lr_scheduler_type: cosine, min_lr_ratio: 0.0, betas: [0.9, 0.95], warmup_style: null}
  rollout:
    n: 4
    temperature: 0.8
    val_kwargs: {n: 8, do_sample: true, temperature: 0.6, top_p: 0.95}
  ref:
    log_prob_micro_batch_size_per_gpu: ${oc.select:actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu,16}
trainer:
  n_gpus_per_node: 8
  total_training_steps: 50
  experiment_name: ${oc.env:NO_SUCH_NAME,from-yaml}
"""


def test_a_command_of_grpo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    run = Converted(GRPO)
    assert run.counts == (4096, 8, 1024, 240)
    expected = {
        "model.path": "Qwen/Qwen2.5-3B-Instruct", "model.max_tokens": 2560, "rollout.max_tokens": 2048,
        "data.sources.train.path": "/home/me/sums/train.parquet", "data.sources.train.answer_column": "reward_model.ground_truth",
        "data.template": "chat", "learner.lr": 2e-6, "learner.beta2": 0.999, "learner.weight_decay": 0.01,
        "learner.kl_coef": 0.002, "learner.kl_in": "loss", "learner.kl_estimator": "k3", "learner.dual_clip": 3.0,
        "learner.length_norm": "token", "learner.advantage_scale": "group_std", "learner.importance_cap": 0,
        "learner.zero_stage": 3, "learner.offload_optimizer": True, "learner.activation_checkpointing": True,
        "learner.ranks": 8, "rollout.replicas": 8, "rollout.share_gpus": True, "rollout.gpu_memory": 0.7,
        "learner.micro_batch_tokens": 4 * 2560, "loop.checkpoint_every": 20, "loop.eval_every": 10, "eval.samples": 0,
    }  # fmt: skip
    assert {key: run.get(key) for key in expected} == expected
    assert set(run.stage.eval.sets) == {"val-1", "val-2"}
    assert run.raw["name"] == "sums-3b"
    assert "optimizer's state" in run.comment("actor_rollout_ref.actor.fsdp_config.param_offload")
    assert "rollout.engine" in run.comment("actor_rollout_ref.rollout.engine_kwargs.vllm.seed")
    assert "128" in run.comment("actor_rollout_ref.actor.ppo_mini_batch_size")


def test_dapo_with_an_array_of_settings() -> None:
    run = Converted(DAPO)
    assert run.counts == (1024, 16, 512, 200)
    assert (run.get("learner.clip_low"), run.get("learner.clip_high")) == (0.2, 0.28)
    assert run.get("loop.dynamic_sampling") is True
    assert run.get("learner.micro_batch_tokens") == 20480
    # A step of verl's schedule is a batch: two optimizer steps.
    assert run.get("learner.warmup_steps") == 20
    # Engines of four GPUs beside four ranks: as many GPUs as before.
    assert (run.get("rollout.tensor_parallel"), run.get("rollout.replicas"), run.get("learner.ranks")) == (4, 1, 4)
    length = run.get("rewards.rubrics.default")["length"]
    assert (length.model_extra, length.weight) == ({"max_tokens": 8192, "buffer": 4096}, 1.0)
    assert "answer" in run.get("rewards.rubrics.default")["accuracy"].model_extra["pattern"]


def test_ppo_with_a_value_network_becomes_groups_of_as_many_completions() -> None:
    run = Converted(PPO, rows=1000)
    # 256 completions in steps of 64; 3 batches an epoch of 1,000 rows.
    assert run.counts == (256, 8, 64, 24)
    assert (run.get("learner.kl_in"), run.get("learner.kl_estimator"), run.get("learner.kl_coef")) == (
        "reward",
        "k1",
        0.001,
    )
    assert "no value network" in run.comment("critic.optim.lr")
    assert "no value network" in run.comment("algorithm.adv_estimator")
    (function,) = run.get("rewards.rubrics.default").values()
    assert (function.name, function.model_extra) == ("/data/reward.py:score", {"limit": 400})
    # The default of two GPUs an engine is no wish.
    assert (run.get("rollout.tensor_parallel"), run.get("rollout.share_gpus")) == (1, True)


def test_a_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("NO_SUCH_NAME", raising=False)
    run = Converted(YAML, file="grpo.yaml")
    # Each batch is passed twice there: as many optimizer steps, on new completions.
    assert run.counts == (512, 4, 512, 100)
    assert "passed once" in run.comment("actor_rollout_ref.actor.ppo_epochs")
    expected = {
        "model.path": "/home/me/models/qwen", "learner.advantage_baseline": "leave_one_out", "learner.advantage_scale": "none",
        "learner.lora_rank": 32, "learner.lora_alpha": 64, "learner.length_norm": "sequence", "learner.dual_clip": 10,
        "learner.beta2": 0.95, "learner.schedule": "cosine", "learner.kl_coef": 0, "rollout.temperature": 0.8,
        "eval.samples": 8, "eval.temperature": 0.6, "eval.greedy": False, "data.sources.train-2.prompt_column": "question",
    }  # fmt: skip
    assert {key: run.get(key) for key in expected} == expected
    assert run.raw["name"] == "from-yaml"
    assert "= 16:" in run.comment("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu")


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("grpo", ("group_mean", "group_std")),
        ("grpo algorithm.norm_adv_by_std_in_grpo=False", ("group_mean", "none")),
        ("rloo", ("leave_one_out", "none")),
        ("reinforce_plus_plus_baseline", ("group_mean", "batch_std")),
        ("reinforce_plus_plus", ("group_mean", "batch_std")),
        ("remax", ("leave_one_out", "none")),
    ],
)
def test_estimators(estimator: str, expected: tuple[str, str]) -> None:
    run = Converted(
        f"python -m verl.trainer.main_ppo algorithm.adv_estimator={estimator} actor_rollout_ref.rollout.n=4 trainer.total_training_steps=1"
    )
    assert (run.get("learner.advantage_baseline"), run.get("learner.advantage_scale")) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("kl", "k1"), ("k1", "k1"), ("mse", "k2"), ("low_var_kl", "k3"), ("k3", "k3"), ("k3+", "k2"), ("abs", "k2")],
)
def test_kl_estimators(kind: str, expected: str) -> None:
    run = Converted(
        "python -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=4 trainer.total_training_steps=1 actor_rollout_ref.actor.use_kl_loss=true "
        f"actor_rollout_ref.actor.kl_loss_type={kind}"
    )
    assert run.get("learner.kl_estimator") == expected


def test_ranks_that_pass_a_sequence_together() -> None:
    start = "python -m verl.trainer.main_ppo actor_rollout_ref.rollout.n=4 trainer.total_training_steps=1 actor_rollout_ref.actor.ulysses_sequence_parallel_size"
    run = Converted(f"{start}=4")
    assert (run.get("learner.sequence_parallel"), run.get("learner.ranks")) == (4, 8)
    assert "1" in Converted(f"{start}=3").comment("actor_rollout_ref.actor.ulysses_sequence_parallel_size")


def test_epochs_count_the_rows(tmp_path: Path) -> None:
    rows_file(tmp_path, 70, "a.jsonl")
    rows_file(tmp_path, 35, "b.jsonl")
    command = (
        "python3 -m verl.trainer.main_ppo data.train_files=[a.jsonl,b.jsonl] data.train_batch_size=16 actor_rollout_ref.rollout.n=2 "
        "actor_rollout_ref.actor.ppo_mini_batch_size=8 trainer.total_epochs=3"
    )
    # 105 rows make 6 batches of 16, the rest is dropped; two optimizer steps each.
    assert Converted(command, file=str(tmp_path / "run.sh")).counts == (32, 2, 16, 36)


def test_a_config_beside_the_command(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text(YAML, encoding="utf-8")
    command = "python3 -m verl.trainer.main_ppo --config-path=config --config-name=mine trainer.total_training_steps=5 ~algorithm.gamma"
    run = Converted(command, file=str(tmp_path / "run.sh"))
    assert run.counts == (512, 4, 512, 10)
    assert "mine" in Converted(command.replace("=config ", "=elsewhere "), file="run.sh").comment("--config-name")


def test_a_variable_that_is_not_set_stays_in_a_path_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOT", raising=False)
    run = Converted(
        "python3 -m verl.trainer.main_ppo actor_rollout_ref.model.path=$ROOT/m actor_rollout_ref.rollout.n=2 trainer.total_training_steps=5"
    )
    assert run.get("model.path") == "$ROOT/m"
    assert any("ROOT=… rayzero convert" in line for line in run.draft.remains)
    monkeypatch.setenv("ROOT", "/models")
    run = Converted(
        "python3 -m verl.trainer.main_ppo actor_rollout_ref.model.path=$ROOT/m actor_rollout_ref.rollout.n=2 trainer.total_training_steps=5"
    )
    assert run.get("model.path") == "/models/m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("actor_rollout_ref.rollout.n=many", "line 2: actor_rollout_ref.rollout.n = many: not a number"),
        ("data.train_batch_size=64", "more than the 64 prompts of a batch"),
        ("algorithm.adv_estimator=grpoo", "did you mean 'grpo'"),
        ("actor_rollout_ref.actor.loss_agg_mode=tokenmean", "did you mean 'token-mean'"),
        ("data.train_batch_size=$SIZE", "line 2: data.train_batch_size = $SIZE: SIZE is set neither in the file nor"),
        ("data.train_batch_size=$(nproc)", "is known to a shell alone; write the value itself"),
        ("stray", "line 2: 'stray' is no name=value"),
        ("actor_rollout_ref.actor.optim.betas=[0.9]", "give two numbers"),
        ("\\\n # a comment\n trainer.total_epochs=3", "line 4: trainer.total_epochs stands behind a comment"),
        ("\\ # a comment\n trainer.total_epochs=3", "line 2: a blank behind the"),
    ],
)
def test_mistakes_are_one_line_with_the_place(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIZE", raising=False)
    with pytest.raises(InputError) as caught:
        Converted(f"python3 -m verl.trainer.main_ppo \\\n {arguments}\n")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
