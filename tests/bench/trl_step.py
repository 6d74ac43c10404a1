"""The training step of TRL's GRPOTrainer on the workload of tests/bench/learner.py; run by an interpreter that has TRL.

The trainer's own loop (micro-batches, loss, clipping, AdamW) over completions that are given to it in place of generation.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from tests.bench.memory import resident_kilobytes, restart_peak
from tests.bench.workload import Workload, draw, padded


class FedTrainer(GRPOTrainer):
    work: Workload

    def _generate_and_score_completions(self, inputs):  # type: ignore[no-untyped-def]
        work = self.work
        arrays = {name: torch.from_numpy(value) for name, value in padded(work, range(len(work.completions))).items()}
        asked = arrays["token_ids"].shape[1] - arrays["completion_mask"].shape[1]
        return {
            "prompt_ids": arrays["token_ids"][:, :asked],
            "prompt_mask": arrays["attention_mask"][:, :asked],
            "completion_ids": arrays["token_ids"][:, asked:],
            "completion_mask": arrays["completion_mask"],
            "advantages": torch.from_numpy(work.advantages),
            "num_items_in_batch": torch.tensor(work.num_targets),
        }


class Clock(TrainerCallback):
    """Seconds of every step, and the memory of those after the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.before = 0

    def on_step_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        if state.global_step == 1:
            restart_peak()
            self.before = resident_kilobytes()
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        self.seconds.append(time.perf_counter() - self.began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"))
    for size in ("vocab", "prompts", "rows", "steps"):
        arguments.add_argument(f"--{size}", type=int)
    given = arguments.parse_args()
    folder = given.child[1]
    torch.set_num_threads(2)
    work = draw(given.vocab, given.prompts)
    total, clock = len(work.completions), Clock()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "word": 2}, unk_token="word"))
    trainer = FedTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="<pad>", eos_token="<end>", padding_side="left"
        ),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["word"] * len(work.prompts)}),
        callbacks=[clock],
        args=GRPOConfig(
            output_dir=str(Path(folder) / "trl"),
            per_device_train_batch_size=given.rows,
            gradient_accumulation_steps=total // given.rows,
            num_generations=work.group_size,
            max_completion_length=256,
            max_steps=given.steps + 1,
            loss_type="grpo",
            beta=0.0,
            learning_rate=1e-6,
            max_grad_norm=1.0,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
    )
    trainer.work = work
    trainer.train()
    grown = resident_kilobytes(peak=True) - clock.before
    print(json.dumps({"seconds": float(np.median(clock.seconds[1:])), "bytes": 1024 * grown}))


if __name__ == "__main__":
    main()
