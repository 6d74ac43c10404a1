"""TRL's YAML: batches, defaults by version, losses, rewards, and what has no counterpart."""

from pathlib import Path

import pytest

from rollout.errors import InputError
from tests.orchestrator.convert.reading import Converted, rows_file

SMALL = """
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
dataset_name: trl-lib/tldr
reward_funcs: accuracy_reward
num_processes: 1
max_steps: 10
"""
MATH = """
# reasoning on one node of eight
model_name_or_path: Qwen/Qwen2.5-7B
dataset_name: AI-MO/NuminaMath-TIR
dataset_config: default
accelerate_config: zero3
bf16: true
use_vllm: true
vllm_mode: colocate
vllm_gpu_memory_utilization: 0.5
reward_funcs: [accuracy_reward, think_format_reward, helpers.rewards.brevity]
reward_weights: [1.0, 0.5, 0.1]
per_device_train_batch_size: 8
gradient_accumulation_steps: 4
num_generations: 16
max_prompt_length: 1024
max_completion_length: 4096
learning_rate: 3e-6
lr_scheduler_type: cosine
warmup_ratio: 0.05
beta: 0.001
epsilon: 0.2
epsilon_high: 0.28
loss_type: grpo
max_steps: 200
save_steps: 50
save_total_limit: 3
logging_steps: 5
report_to: [wandb]
push_to_hub: false
"""
REUSED = """
model_name_or_path: /models/base
dataset_name: data.jsonl
num_processes: 6
use_vllm: true
vllm_mode: server
vllm_server_port: 8001
reward_model_name_or_path: /models/judge
per_device_train_batch_size: 4
gradient_accumulation_steps: 8
steps_per_generation: 32
num_generations: 12
num_iterations: 2
loss_type: dr_grpo
scale_rewards: false
mask_truncated_completions: true
use_peft: true
lora_r: 64
lora_alpha: 128
lora_target_modules: [q_proj, v_proj]
deepspeed_config:
  zero_stage: 2
  offload_optimizer_device: cpu
max_steps: 400
eval_strategy: steps
eval_steps: 40
"""


def test_a_run_on_one_node() -> None:
    run = Converted(MATH, file="math.yaml")
    assert run.counts == (256, 16, 256, 200)
    expected = {
        "model.path": "Qwen/Qwen2.5-7B", "model.dtype": "bfloat16", "model.max_tokens": 5120,
        "data.sources.train.path": "hub:AI-MO/NuminaMath-TIR", "data.sources.train.subset": "default",
        "data.sources.train.answer_column": "solution", "data.template": "chat",
        "learner.ranks": 8, "learner.zero_stage": 3, "rollout.replicas": 8, "rollout.share_gpus": True,
        "learner.lr": 3e-6, "learner.schedule": "cosine", "learner.warmup_share": 0.05, "learner.kl_coef": 0.001,
        "learner.kl_estimator": "k3", "learner.clip_low": 0.2, "learner.clip_high": 0.28, "learner.length_norm": "sequence",
        "learner.advantage_scale": "group_std", "loop.checkpoint_every": 50, "loop.keep_checkpoints": 3, "seed": 42,
    }  # fmt: skip
    assert {key: run.get(key) if key != "seed" else run.raw["seed"] for key in expected} == expected
    rubric = run.get("rewards.rubrics.default")
    assert {label: (function.name, function.weight) for label, function in rubric.items()} == {
        "accuracy": ("accuracy", 1.0), "think-format": ("format", 0.5), "brevity": ("helpers.rewards:brevity", 0.1),
    }  # fmt: skip
    assert "10 % of the peak" in run.toml
    assert "metrics.jsonl" in run.comment("report_to")


def test_a_generation_that_is_used_by_several_optimizer_steps() -> None:
    run = Converted(REUSED, file="reused.yaml")
    # 4 × 6 × 32 completions are sampled at a time, of which 4 × 6 × 8 make an optimizer step.
    assert run.counts == (768, 12, 192, 400)
    assert "as many optimizer steps" in run.comment("num_iterations")
    assert run.get("learner.length_norm") == "constant"
    assert run.get("learner.advantage_scale") == "none"
    assert run.get("learner.overlong_filtering") is True
    assert (run.get("learner.lora_rank"), run.get("learner.lora_alpha")) == (64, 128)
    assert run.get("learner.lora_targets") == ("q_proj", "v_proj")
    assert (run.get("learner.zero_stage"), run.get("learner.offload_optimizer")) == (2, True)
    assert (run.get("rollout.share_gpus"), run.get("learner.ranks")) == (False, 6)
    assert run.get("loop.eval_every") == 10
    (function,) = run.get("rewards.rubrics.default").values()
    assert function.name == "reward_model"
    assert function.model_extra["path"] == "/models/judge"


def test_what_trl_takes_by_default_is_written_where_ours_differs() -> None:
    run = Converted(SMALL, file="small.yaml")
    defaults = {
        "learner.kl_coef": 0.0, "learner.lr": 1e-6, "learner.length_norm": "token", "learner.beta2": 0.999,
        "learner.schedule": "cosine", "learner.activation_checkpointing": True, "rollout.group_size": 8,
        "rollout.max_tokens": 256, "loop.checkpoint_every": 500,
    }  # fmt: skip
    assert {key: run.get(key) for key in defaults} == defaults
    assert all(run.written(key) for key in defaults)
    assert run.counts == (8, 8, 8, 10)


@pytest.mark.parametrize(
    ("version", "beta", "length", "temperature"),
    [
        ((0, 16), 0.04, "sequence", 0.9),
        ((0, 17), 0.04, "token", 0.9),
        ((0, 18), 0.04, "token", 1.0),
        ((0, 22), 0.0, "token", 1.0),
    ],
)
def test_defaults_are_those_of_the_version(
    version: tuple[int, int], beta: float, length: str, temperature: float
) -> None:
    run = Converted(SMALL, file="small.yaml", version=version)
    assert (run.get("learner.kl_coef"), run.get("learner.length_norm"), run.get("rollout.temperature")) == (
        beta,
        length,
        temperature,
    )


def test_an_old_version_counts_prompts_of_a_device() -> None:
    old = "per_device_train_batch_size: 2\ngradient_accumulation_steps: 3\nnum_generations: 4\nmax_steps: 5\nnum_processes: 2\nreward_funcs: accuracy_reward"
    assert Converted(old, file="a.yaml", version=(0, 14)).counts == (48, 4, 48, 5)
    assert Converted(old.replace("_size: 2", "_size: 4"), file="a.yaml").counts == (24, 4, 24, 5)


@pytest.mark.parametrize(
    ("written", "policy", "length", "clips"),
    [
        ("loss_type: grpo", "clip", "sequence", (0.2, 0.2)),
        ("loss_type: dapo\nepsilon_high: 0.28", "clip", "token", (0.2, 0.28)),
        ("loss_type: bnpo\nepsilon: 0.1", "clip", "token", (0.1, 0.1)),
        ("loss_type: dr_grpo", "clip", "constant", (0.2, 0.2)),
        ("loss_type: cispo\nepsilon_high: 5.0", "cispo", "token", (1.0, 4.0)),
        (
            "loss_type: grpo\nimportance_sampling_level: sequence\nepsilon: 3e-4\nepsilon_high: 4e-4",
            "gspo",
            "sequence",
            (3e-4, 4e-4),
        ),
    ],
)
def test_losses_by_their_names(written: str, policy: str, length: str, clips: tuple[float, float]) -> None:
    run = Converted(f"{SMALL}{written}", file="small.yaml")
    assert (run.get("learner.policy_loss"), run.get("learner.length_norm")) == (policy, length)
    assert (run.get("learner.clip_low"), run.get("learner.clip_high")) == clips


def test_the_correction_of_the_sampler() -> None:
    run = Converted(f"{SMALL}use_vllm: true", file="a.yaml")
    settings = run.stage.learner
    assert (
        settings.importance_cap,
        settings.importance_mode,
        settings.importance_level,
        settings.importance_floor,
    ) == (3, "mask", "sequence", 0)
    run = Converted(f"{SMALL}use_vllm: true\nvllm_importance_sampling_correction: false", file="a.yaml")
    assert run.get("learner.importance_cap") == 0


def test_epochs_count_the_rows(tmp_path: Path) -> None:
    rows_file(tmp_path, 100)
    text = SMALL.replace("max_steps: 10", "num_train_epochs: 3").replace("trl-lib/tldr", "rows.jsonl")
    text += "per_device_train_batch_size: 16\ngradient_accumulation_steps: 4\n"
    # 64 completions are 8 prompts; 100 rows make 12 batches.
    assert Converted(text, file=str(tmp_path / "a.yaml")).counts == (64, 8, 64, 36)
    assert Converted(text, file="elsewhere.yaml", rows=50).counts == (64, 8, 64, 18)
    unknown = Converted(text, file="elsewhere.yaml")
    assert any("--rows N" in line for line in unknown.draft.remains)
    assert "# not known: num_train_epochs = 3" in unknown.toml


def test_more_passes_are_more_optimizer_steps_of_an_epoch() -> None:
    text = SMALL.replace("max_steps: 10", "num_train_epochs: 2\nnum_iterations: 3")
    assert Converted(text, file="a.yaml", rows=40).counts == (8, 8, 8, 240)


def test_mixtures_and_evaluations() -> None:
    text = SMALL.replace(
        "dataset_name: trl-lib/tldr",
        "datasets:\n  - {path: openai/gsm8k, name: main}\n  - {path: json, data_files: [more.jsonl], split: train}",
    )
    run = Converted(text, file="a.yaml")
    assert (run.get("data.sources.part-1.set"), run.get("data.sources.part-1.subset")) == ("gsm8k", "main")
    assert run.get("data.sources.part-2.path") == "more.jsonl"
    run = Converted(f"{SMALL}eval_strategy: steps\neval_steps: 5\nnum_generations_eval: 2", file="a.yaml")
    assert (run.get("eval.sets.test.split"), run.get("loop.eval_every"), run.get("eval.samples")) == ("test", 5, 2)


def test_files_of_accelerate_and_deepspeed_are_read_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "four.yaml").write_text(
        "num_processes: 4\ndistributed_type: FSDP\nmixed_precision: bf16\n", encoding="utf-8"
    )
    stage = '{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}, "train_batch_size": "auto"}'
    (tmp_path / "ds.json").write_text(stage, encoding="utf-8")
    text = SMALL.replace("num_processes: 1", "accelerate_config: four.yaml")
    run = Converted(text, file=str(tmp_path / "a.yaml"))
    assert (run.get("learner.ranks"), run.get("learner.zero_stage")) == (4, 3)
    run = Converted(f"{SMALL}deepspeed: ds.json", file=str(tmp_path / "a.yaml"))
    assert (run.get("learner.zero_stage"), run.get("learner.offload_optimizer")) == (2, True)
    assert any(
        "file of DeepSpeed" in line for line in Converted(f"{SMALL}deepspeed: none.json", file="a.yaml").draft.remains
    )


def test_every_setting_that_nobody_takes_is_told() -> None:
    extra = "top_p: 0.9\nadam_epsilon: 1e-9\nttot_p: 1\ntop_entropy_quantile: 0.2\nlog_completions: true\nchat_template_kwargs: {enable_thinking: false}\nenv: {A: b}\n"
    run = Converted(SMALL + extra, file="a.yaml")
    for name in (
        "top_p",
        "adam_epsilon",
        "ttot_p",
        "top_entropy_quantile",
        "log_completions",
        "env.A",
    ):
        assert len(run.comment(name)) > len(name) + 10
    assert "not known here, left out; did you mean 'top_p'?" in run.comment("ttot_p")
    assert "chat_template_kwargs.enable_thinking" in run.toml


def test_a_command_of_trl() -> None:
    command = (
        "accelerate launch --num_processes 4 \\\n  trl/scripts/grpo.py --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name d.jsonl \\\n"
        "  --reward_funcs accuracy_reward think_format_reward --num_generations 4 --max_steps=50 --use_vllm\n"
    )
    run = Converted(command)
    assert run.counts == (32, 4, 32, 50)
    assert set(run.get("rewards.rubrics.default")) == {"accuracy", "think-format"}


@pytest.mark.parametrize(
    ("command", "devices"),
    [
        ("accelerate launch --num_processes 3 mine/train.py", 3),
        ("torchrun --nproc_per_node=2 train_grpo.py", 2),
        ("deepspeed --num_gpus 4 train_grpo.py", 4),
        ("CUDA_VISIBLE_DEVICES=0 uv run python train.py", 1),
    ],
)
def test_a_program_of_ones_own_is_known_by_its_settings(command: str, devices: int) -> None:
    run = Converted(
        f"{command} --num_generations 8 --per_device_train_batch_size 8 --reward_funcs accuracy_reward --max_steps 5"
    )
    assert run.counts == (8 * devices, 8, 8 * devices, 5)


@pytest.mark.parametrize("setting", ["max_length: 4096", "packing: true", "dataset_text_field: text"])
def test_a_yaml_of_another_trainer_is_no_grpo(setting: str) -> None:
    text = f"model_name_or_path: a/b\nlearning_rate: 1e-5\n{setting}\n"
    with pytest.raises(InputError, match=f"line 3: {setting.partition(':')[0]} is no setting of TRL's GRPO"):
        Converted(text, file="sft.yaml")
    assert Converted(f"{text}num_generations: 8\n", file="grpo.yaml").get("learner.lr") == 1e-5


def test_a_launcher_whose_config_is_elsewhere() -> None:
    run = Converted(
        "accelerate launch --config_file zero3.yaml trl/scripts/grpo.py --reward_funcs accuracy_reward --max_steps 5"
    )
    assert "--processes" in run.comment("config_file")
    with pytest.raises(InputError, match="no file that can be read"):
        Converted("trl grpo --config none.yaml")


@pytest.mark.parametrize(
    ("functions", "column"),
    [
        ("accuracy_reward", "solution"),
        ("[a.b, accuracy_reward]", "solution"),
        ("mine.rewards.short", ""),
        ("tag_count", "solution"),
    ],
)
def test_the_column_of_the_answers(functions: str, column: str) -> None:
    run = Converted(SMALL.replace("accuracy_reward", functions), file="a.yaml")
    assert run.get("data.sources.train.answer_column") == column


def test_a_command_of_trl_with_its_yaml(tmp_path: Path) -> None:
    (tmp_path / "grpo.yaml").write_text(MATH, encoding="utf-8")
    run = Converted("trl grpo --config grpo.yaml --max_steps 7", file=str(tmp_path / "run.sh"))
    assert run.counts == (256, 16, 256, 7)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("num_generations: eight", "line 7: num_generations = eight: not a number"),
        ("num_generations: 2.5", "line 7: num_generations = 2.5: not a whole number"),
        ("num_generations: 1", "line 7: num_generations = 1: give at least 2"),
        ("num_generations: 6", "are no multiple of it; change one of them, or give --processes N, such as 3"),
        ("loss_type: drgrpo", "line 7: loss_type = drgrpo: no loss of TRL; did you mean 'dr_grpo'"),
        ("learning_rate: 0", "give a number above 0"),
        ("learning_rate: .nan", "not a number"),
        ("use_vllm: perhaps", "neither true nor false"),
        ("generation_batch_size: 8\nsteps_per_generation: 1", "steps_per_generation says the same"),
        ("reward_weights: [1, 2]", "2 weights for 1 functions"),
        ("max_steps: 3", "line 7: max_steps is there twice, first in line 6"),
        ("temperature: 0", "the recipe|temperature"),
        ("beta: [", "line .*: not valid YAML"),
        ("x: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_mistakes_are_one_line_with_the_place(written: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")) as caught:
        Converted(SMALL + written, file="a.yaml")
    assert "\n" not in str(caught.value)
