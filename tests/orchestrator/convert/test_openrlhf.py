"""OpenRLHF's command: rollouts in prompts, steps in completions, both generations of names, and what has no counterpart."""

from pathlib import Path

import pytest

from rollout.errors import InputError
from tests.orchestrator.convert.reading import Converted, rows_file

GROUPS = r"""
set -x
ray job submit --address="http://127.0.0.1:8265" \
   --runtime-env-json='{"working_dir": "/work", "env_vars": {"WANDB_API_KEY": "verysecret"}}' \
   -- python3 -m openrlhf.cli.train_ppo_ray \
   --ref_num_nodes 1 \
   --actor_num_nodes 1 \
   --actor_num_gpus_per_node 8 \
   --vllm_num_engines 8 \
   --vllm_tensor_parallel_size 1 \
   --colocate_all_models \
   --vllm_gpu_memory_utilization 0.6 \
   --pretrain /models/sft \
   --remote_rm_url /data/reward_func.py \
   --advantage_estimator group_norm \
   --use_kl_loss \
   --kl_estimator k3 \
   --init_kl_coef 1e-3 \
   --micro_train_batch_size 8 \
   --train_batch_size 256 \
   --micro_rollout_batch_size 16 \
   --rollout_batch_size 128 \
   --n_samples_per_prompt 8 \
   --max_epochs 1 \
   --num_episodes 2 \
   --prompt_max_len 1024 \
   --generate_max_len 3072 \
   --max_samples 20000 \
   --zero_stage 3 \
   --adam_offload \
   --bf16 \
   --actor_learning_rate 5e-7 \
   --prompt_data someone/problems \
   --input_key question --label_key gold \
   --apply_chat_template \
   --gradient_checkpointing \
   --packing_samples \
   --vllm_enable_sleep \
   --save_steps 20 \
   --use_wandb abcdef
"""
REWARD_MODEL = r"""
read -r -d '' training_commands <<EOF
openrlhf.cli.train_ppo_ray \
   --pretrain meta/base \
   --reward_pretrain someone/reward \
   --critic_learning_rate 9e-6 \
   --rollout_batch_size 1024 \
   --train_batch_size 128 \
   --prompt_data one/prompts,two/prompts \
   --prompt_data_probs 0.7,0.3 \
   --input_template User:{}Answer: \
   --normalize_reward
EOF
deepspeed --module $training_commands
"""
DOTTED = r"""
MODEL="Qwen/Qwen3-4B"
ROLLOUT=(
   --data.prompt_dataset ./problems.jsonl
   --data.input_key prompt
   --data.label_key label
   --data.max_len 9216
   --rollout.max_new_tokens 8192   # long
   --rollout.batch_size 128
   --rollout.n_samples_per_prompt 8
   --train.batch_size 1024
   --algo.dynamic_filtering_enable
   --algo.dynamic_filtering_range 0.0 1.0
)
python3 -m openrlhf.cli.train_ppo_ray \
   --actor.model_name_or_path ${MODEL} \
   "${ROLLOUT[@]}" \
   --reward.remote_url http://10.0.0.7:5000/get_reward \
   --reward.overlong_buffer_len 1024 \
   --train.async_enable --train.async_queue_size 2 --train.partial_rollout_enable \
   --actor.num_gpus_per_node 4 --vllm.num_engines 2 --vllm.tensor_parallel_size 2 \
   --train.dynamic_batch_enable --train.max_tokens_per_gpu 16192 \
   --actor.eps_clip_low_high 0.2 0.27 \
   --algo.advantage.estimator reinforce_baseline \
   --algo.kl.init_coef 0 \
   --algo.advantage.is_correction_enable --algo.advantage.is_correction_type icepop \
   --actor.adam.lr 1e-6 --actor.adam.betas 0.9 0.98 \
   --eval.dataset ./held.jsonl --eval.steps 5 --eval.n_samples_per_prompt 16 --eval.temperature 1.0 \
   --logger.wandb.key 0123456789abcdef \
   --ckpt.max_num 2 --ckpt.save_steps 10
"""


def test_groups_under_ray() -> None:
    run = Converted(GROUPS, rows=10_000)
    # 10,000 × 8 // 256 optimizer steps, twice.
    assert run.counts[:3] == (1024, 8, 256)
    assert run.counts[3] == 624
    expected = {
        "model.path": "/models/sft", "model.dtype": "bfloat16", "model.max_tokens": 4096, "data.max_prompt_tokens": 1024,
        "data.sources.train.path": "hub:someone/problems", "data.sources.train.prompt_column": "question",
        "data.sources.train.answer_column": "gold", "data.template": "chat", "learner.lr": 5e-7, "learner.schedule": "cosine",
        "learner.warmup_share": 0.03, "learner.beta2": 0.95, "learner.kl_coef": 1e-3, "learner.kl_in": "loss",
        "learner.kl_estimator": "k3", "learner.advantage_baseline": "group_mean", "learner.advantage_scale": "group_std",
        "learner.length_norm": "token", "learner.zero_stage": 3, "learner.offload_optimizer": True,
        "learner.activation_checkpointing": True, "learner.micro_batch_tokens": 8 * 4096, "rollout.share_gpus": True,
        "learner.ranks": 8, "rollout.replicas": 8, "loop.checkpoint_every": 20, "learner.importance_cap": 0,
    }  # fmt: skip
    assert {key: run.get(key) for key in expected} == expected
    (function,) = run.get("rewards.rubrics.default").values()
    assert function.name == "/data/reward_func.py:reward_func"
    assert "always packed" in run.comment("packing_samples")
    assert "completions of an optimizer step" in run.comment("train_batch_size")


def test_ppo_with_a_reward_model_in_a_here_document() -> None:
    run = Converted(REWARD_MODEL, rows=8192)
    assert run.counts == (1024, 8, 128, 64)
    sources = run.stage.data.sources
    assert [(source.path, source.weight, source.prompt_form) for source in sources.values()] == [
        ("hub:one/prompts", 0.7, "User:{prompt}Answer:"),
        ("hub:two/prompts", 0.3, "User:{prompt}Answer:"),
    ]
    assert run.get("data.template") == "plain"
    assert (run.get("learner.kl_coef"), run.get("learner.kl_in"), run.get("learner.kl_estimator")) == (
        0.01,
        "reward",
        "k1",
    )
    assert (run.get("learner.zero_stage"), run.get("model.max_tokens")) == (2, 2048)
    (function,) = run.get("rewards.rubrics.default").values()
    assert (function.name, function.model_extra["path"]) == ("reward_model", "someone/reward")
    for name in ("critic_learning_rate", "normalize_reward"):
        run.comment(name)
    assert "value network" in run.comment("advantage_estimator")


def test_names_with_dots() -> None:
    run = Converted(DOTTED, rows=1280)
    assert run.counts == (1024, 8, 1024, 10)
    expected = {
        "model.path": "Qwen/Qwen3-4B", "data.sources.train.path": "./problems.jsonl", "data.max_prompt_tokens": 1024,
        "rollout.max_tokens": 8192, "loop.dynamic_sampling": True, "loop.max_staleness": 2, "rollout.share_gpus": False,
        "rollout.tensor_parallel": 2, "rollout.replicas": 2, "learner.ranks": 4, "learner.micro_batch_tokens": 16192,
        "learner.clip_high": 0.27, "learner.advantage_scale": "batch_std", "learner.kl_coef": 0, "learner.beta2": 0.98,
        "learner.importance_mode": "mask", "learner.importance_cap": 5, "learner.importance_floor": 0.5, "eval.samples": 16,
        "eval.temperature": 1.0, "loop.eval_every": 5, "loop.keep_checkpoints": 2, "eval.sets.test.path": "./held.jsonl",
    }  # fmt: skip
    assert {key: run.get(key) for key in expected} == expected
    rubric = run.get("rewards.rubrics.default")
    assert rubric["remote"].name == "http://10.0.0.7:5000/get_reward"
    assert rubric["length"].model_extra == {"max_tokens": 8192, "buffer": 1024}


def test_several_passes_are_as_many_optimizer_steps() -> None:
    run = Converted(GROUPS.replace("--max_epochs 1", "--max_epochs 2"), rows=1280)
    assert run.counts[3] == 1280 * 8 // 256 * 2 * 2
    assert "passed once" in run.comment("max_epochs")


def test_ranks_that_pass_a_sequence_together() -> None:
    assert (
        Converted(GROUPS.replace("--zero_stage 3", "--ring_attn_size 2"), rows=1280).get("learner.sequence_parallel")
        == 2
    )


def test_rows_that_are_here(tmp_path: Path) -> None:
    rows_file(tmp_path, 260, "problems.jsonl")
    assert Converted(DOTTED, file=str(tmp_path / "run.sh")).counts[3] == 260 * 8 // 1024


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("rloo", ("leave_one_out", "none")),
        ("reinforce_baseline", ("group_mean", "batch_std")),
        ("reinforce_baseline --no_advantage_std_norm", ("group_mean", "none")),
        ("dr_grpo", ("group_mean", "none")),
        ("group_norm", ("group_mean", "group_std")),
    ],
)
def test_estimators(estimator: str, expected: tuple[str, str]) -> None:
    run = Converted(
        f"python -m openrlhf.cli.train_ppo_ray --pretrain /m --n_samples_per_prompt 4 --advantage_estimator {estimator}",
        rows=9999,
    )
    assert (run.get("learner.advantage_baseline"), run.get("learner.advantage_scale")) == expected


@pytest.mark.parametrize(
    "start",
    [
        "python3 -m openrlhf.cli.train_ppo_ray",
        "/usr/bin/python OpenRLHF/openrlhf/cli/train_ppo_ray.py",
        "cd x && nohup deepspeed --module openrlhf.cli.train_ppo_ray",
        'srun bash -c "pip install x && ray job submit -- python3 -m openrlhf.cli.train_ppo_ray --zero_stage 1" #',
    ],
)
def test_ways_to_start_it(start: str) -> None:
    assert Converted(f"{start} --pretrain=/m --n_samples_per_prompt 4", rows=9999).written("learner.zero_stage")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n_samples_per_prompt four", "line 2: n_samples_per_prompt = four: not a number"),
        ("--train_batch_size 4096", "more than the 1,024 completions of a rollout"),
        ("--advantage_estimator grpo", "advantage_estimator = grpo: not known; did you mean 'dr_grpo'"),
        ("--eps_clip_low_high 0.2", "give two numbers"),
        ("--kl_estimator k4", "there is: k1, k2, k3"),
        ("--prompt_data a/b,c/d --prompt_data_probs 1", "1 shares for 2 data sets"),
    ],
)
def test_mistakes_are_one_line_with_the_place(arguments: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Converted(f"python3 -m openrlhf.cli.train_ppo_ray \\\n {arguments}\n", rows=5000)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_without_a_name_is_told() -> None:
    with pytest.raises(InputError, match="line 1: 'stray' has no --name before it"):
        Converted("python3 -m openrlhf.cli.train_ppo_ray stray --pretrain /m")
