"""TRL's GRPOTrainer on the workload of tests/bench/long_tail.py, its own generation included; run by an interpreter that has TRL.

    PYTHON -m tests.bench.trl_loop FOLDER [--steps N] [--rows R] [--bf16] [--continuous]

One optimizer step on 128 fresh completions, on-policy, as the recipe there says it. The last line of the output is JSON: the
seconds of every step, those of them spent on generation, and the lengths of its completions.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from tests.bench.long_tail import BETAS, GROUP_SIZE, LEARNING_RATE, MAX_TOKENS, PROMPTS, read_prompts, vowels


class TimedTrainer(GRPOTrainer):
    generating = 0.0
    """Seconds so far."""

    def _generate_single_turn(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        began = time.perf_counter()
        answer = super()._generate_single_turn(*args, **kwargs)
        self.generating += time.perf_counter() - began
        return answer


class Clock(TrainerCallback):
    """Of every step, from the end of the one before: seconds, and seconds of generation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.generate: list[float] = []
        self.trainer: TimedTrainer | None = None

    def on_train_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        self.began, self.before = time.perf_counter(), 0.0

    def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        assert self.trainer
        now, generating = time.perf_counter(), self.trainer.generating
        self.seconds.append(now - self.began)
        self.generate.append(generating - self.before)
        self.began, self.before = now, generating


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--steps", type=int, default=7)
    arguments.add_argument("--rows", type=int, default=32, help="completions of a micro-batch")
    arguments.add_argument("--bf16", action="store_true")
    arguments.add_argument("--continuous", action="store_true", help="transformers' continuous batching")
    given = arguments.parse_args()
    torch.set_num_threads(2)
    clock, lengths = Clock(), []

    def reward(prompts, completions, completion_ids, **_):  # type: ignore[no-untyped-def]
        lengths.append([len(ids) for ids in completion_ids])
        return [vowels(*pair, "") for pair in zip(prompts, completions, strict=True)]

    model = str(given.folder / "model")
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": read_prompts(given.folder)}),
        callbacks=[clock],
        args=GRPOConfig(
            output_dir=str(given.folder / "trl"),
            per_device_train_batch_size=given.rows,
            gradient_accumulation_steps=PROMPTS * GROUP_SIZE // given.rows,
            num_generations=GROUP_SIZE,
            max_completion_length=MAX_TOKENS,
            max_steps=given.steps,
            shuffle_dataset=False,
            loss_type="grpo",
            beta=0.0,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            weight_decay=0.0,
            max_grad_norm=1.0,
            use_transformers_continuous_batching=given.continuous,
            bf16=given.bf16,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
    )
    clock.trainer = trainer
    trainer.train()
    print(json.dumps({"seconds": clock.seconds, "generate": clock.generate, "lengths": lengths}))


if __name__ == "__main__":
    main()
