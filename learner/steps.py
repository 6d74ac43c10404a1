"""The verbs of one learner rank: open, plan, train, kl_to_reference, scores, logprobs, stage_weights, save, load, export.

Plain Python round a DeepSpeed engine; the Ray actor in learner/service.py only forwards to it. Every verb is collective:
all ranks call it with the same arguments, and each picks its own share.
"""

import json
import os
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from learner.batch import Pack, TrainingBatch
from learner.checkpoint import (
    TAG,
    Layout,
    load_random_state,
    load_relaid,
    read_record,
    save_random_state,
    write_record,
)
from learner.export import export_model
from learner.learning_rate import learning_rate
from learner.losses.kl import kl_estimate
from learner.losses.policy import policy_loss
from learner.losses.preferences import dpo_loss, implicit_rewards, pairwise_loss
from learner.losses.supervised import sft_loss
from learner.losses.types import LossParts, Tokens
from learner.model.lora import BaseReference, add_adapters, load_trained
from learner.model.policy import PackTensors, Policy, RewardModel, load_policy, load_reward_model, to_device
from learner.model.reference import Reference, refresh_is_due
from learner.progress import Progress
from learner.publish.shared_memory import AdapterPublisher, SharedMemoryPublisher
from learner.spec import LearnerSpec
from learner.stats import RankStats, merged
from learner.throughput import TRAIN, ModelCost, matmul_peak, memory_peak, reset_memory_peak
from rollout.errors import InputError
from rollout.weights.manifest import WeightManifest, discard

Objective = Literal["grpo", "sft", "reward_model", "dpo"]


class LearnerRank:
    """One data-parallel rank: an HF model inside a DeepSpeed engine, and the frozen reference beside it."""

    def __init__(
        self,
        rank: int,
        ranks: int,
        master_address: str,
        master_port: int,
        threads: int,
        timeout_s: float,
        progress: Progress | None = None,
    ) -> None:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=os.environ.get("LOCAL_RANK", "0"),
            WORLD_SIZE=str(ranks),
            MASTER_ADDR=master_address,
            MASTER_PORT=str(master_port),
        )
        import deepspeed

        self.rank, self.ranks = rank, ranks
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", 0) if self.cuda else torch.device("cpu")
        if not self.cuda:
            torch.set_num_threads(threads)
        # The op compiles for a minute with g++ at first use, serves ranks of one host only, and lets peers hang where a
        # CPU lacks its vector instructions. Gloo does the same work everywhere.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(
            dist_backend="nccl" if self.cuda else "gloo", verbose=False, timeout=timedelta(seconds=timeout_s)
        )
        self.progress = progress or Progress()
        self.progress.watch_collectives()

    def open(self, spec: LearnerSpec) -> int:
        """Load the model of a stage (dropping the one before); returns its number of parameters.

        Raises:
            InputError: the model cannot be loaded.
        """
        import deepspeed

        self.spec = spec
        self.optimizer_steps = 0
        torch.manual_seed(spec.seed)
        self.dtype = getattr(torch, spec.dtype)
        self.sharded = spec.zero_stage == 3
        self.policy = self._load_model(spec)
        self.cost = ModelCost.of(self.policy.model)
        if spec.lora_rank:
            add_adapters(self.policy, spec)
        count = sum(parameter.numel() for parameter in self.policy.parameters())
        if spec.activation_checkpointing:
            self.policy.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.policy.train()  # models are loaded for inference, and `transformers` recomputes only in training
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.policy.parameters() if parameter.requires_grad],
            lr=spec.lr,
            betas=(spec.beta1, spec.beta2),
            weight_decay=spec.weight_decay,
            # On the CPU the fused step is vectorised and threaded: what DeepSpeed's own CPU optimizer, which compiles
            # for minutes at first use, is for.
            fused=spec.zero_stage == 0 or spec.offload_optimizer,
        )
        self.ds_engine, *_ = deepspeed.initialize(
            model=self.policy, optimizer=optimizer, config=_deepspeed_config(spec), dist_init_required=False
        )
        self.reference = self._open_reference(spec) if spec.reference_path else None
        if not hasattr(self, "publisher"):
            self.publisher = self._open_publisher(spec)
            self.adapters = AdapterPublisher(self.rank, self.dtype)
        return count

    def plan(self, total_steps: int, warmup_steps: int) -> None:
        """How many optimizer steps the stage has, where that is known only after the model was opened."""
        self.spec = replace(self.spec, total_steps=total_steps, warmup_steps=warmup_steps)

    def train(self, batch: TrainingBatch, objective: Objective) -> RankStats:
        """One optimizer step a mini-batch; the policy before the first of them anchors the clip.

        Raises:
            InputError: DPO without a reference.
        """
        peak_flops = matmul_peak(self.device, self.dtype)
        reset_memory_peak(self.device)
        began, steps_before = time.perf_counter(), self.optimizer_steps
        mini_batches = [[to_device(pack, self.device) for pack in mini[self.rank]] for mini in batch.packs]
        self.progress.at("log-probabilities before the first step")
        anchors = self._anchors(mini_batches, batch.temperature, objective)
        figures: list[dict[str, float]] = []
        parts: Counter[str] = Counter()
        norms, lr = [], self._set_learning_rate()
        for number, (packs, anchor) in enumerate(zip(mini_batches, anchors, strict=True), 1):
            lr = self._set_learning_rate()
            for i, (pack, (old, reference)) in enumerate(zip(packs, anchor, strict=True)):
                self.progress.at(f"mini-batch {number} of {len(mini_batches)}, micro-batch {i + 1} of {len(packs)}")
                self.ds_engine.set_gradient_accumulation_boundary(i == len(packs) - 1)
                loss = self._loss(objective, pack, batch.temperature, old, reference)
                # DeepSpeed averages gradients over ranks; the weights already hold the mean over the whole batch.
                self.ds_engine.backward(loss.loss * self.ranks)
                figures.append(_numbers(loss.figures))
                parts.update(_numbers(loss.parts))
            self.progress.at(f"mini-batch {number} of {len(mini_batches)}, optimizer step")
            norm = self._plain_grad_norm()
            self.ds_engine.step()
            norms.append(float(self.ds_engine.get_global_grad_norm() if norm is None else norm))
            self.optimizer_steps += 1
        if isinstance(self.reference, Reference) and refresh_is_due(
            steps_before, self.optimizer_steps, self.spec.reference_refresh_steps
        ):
            self.reference.refresh(self.policy)
        return RankStats(
            figures=merged(figures),
            parts={name: share / len(mini_batches) for name, share in parts.items()},
            grad_norm=sum(norms) / max(len(norms), 1),
            lr=lr,
            seconds=time.perf_counter() - began,
            optimizer_steps=self.optimizer_steps,
            model_flops=self._model_flops(batch, objective),
            peak_flops=peak_flops,
            memory_peak=memory_peak(self.device),
        )

    def kl_to_reference(self, batch: TrainingBatch) -> tuple[np.ndarray, np.ndarray]:
        """Of this rank's sequences: ([S] their rows, [S] float64 the KL estimate summed over the targets of each)."""
        assert self.reference is not None
        rows, sums = [], []
        for mini in batch.packs:
            for pack in mini[self.rank]:
                tensors = to_device(pack, self.device)
                logprobs = self._forward_tensor(self.ds_engine, tensors, batch.temperature)
                reference = self.reference.logprobs(tensors, batch.temperature)
                kl = kl_estimate(logprobs, reference, self.spec.kl_estimator).double().cpu().numpy()
                if pack.weights.any():
                    rows.append(pack.rows)
                    sums.append(np.bincount(pack.segments, kl, minlength=len(pack.rows)))
        return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([np.empty(0), *sums])

    def scores(self, batch: TrainingBatch) -> tuple[np.ndarray, np.ndarray]:
        """Of this rank's sequences: ([S] their rows, [S] float64 what ranks the answers to a prompt).

        A reward model's score; of a policy DPO's implicit reward, β log(π / π_ref) of the completion.
        """
        rows, found = [], []
        for mini in batch.packs:
            for pack in mini[self.rank]:
                # A collective under ZeRO-3, so the empty packs of a rank without work pass too.
                values = self._score(to_device(pack, self.device), batch.temperature)
                if pack.weights.any():
                    rows.append(pack.rows)
                    found.append(values[: len(pack.rows)].double().cpu().numpy())
        return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([np.empty(0), *found])

    def logprobs(self, batch: TrainingBatch) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of this rank's targets, pack by pack: (learner's logprobs, sampler's logprobs), each [N] float32."""
        pairs = []
        for mini in batch.packs:
            for pack in mini[self.rank]:
                # A collective under ZeRO-3, so the empty packs of a rank without work pass too.
                values = self._forward(self.ds_engine, to_device(pack, self.device), batch.temperature)
                if pack.weights.any():
                    pairs.append((values, pack.rollout_logprobs))
        return pairs

    def stage_weights(self, version: int, base: bool = True, adapter: bool = True) -> WeightManifest | None:
        """Make the current weights ready to be loaded as `version`; the manifest on rank 0.

        Args:
            base: whether the engines lack the model as it is, but for its adapters.
            adapter: whether they lack the adapters, if it has any.
        """
        self._sends_base = base
        manifest = self.publisher.stage(self.policy.model, version, self.sharded) if base else None
        files = self.adapters.stage(self.policy.model, version, self.sharded) if self.spec.lora_rank and adapter else ()
        if self.rank != 0:
            return None
        manifest = manifest or WeightManifest(version=version, backend=self.spec.backend, num_bytes=0)
        size = manifest.num_bytes + sum(file.num_bytes for file in files)
        return replace(manifest, adapter=files, num_bytes=size)

    def meet_engines(self, address: str, port: int, world_size: int) -> None:
        """Form the group that weights are broadcast in (nccl)."""
        self.publisher.connect(address, port, world_size)

    def send_weights(self) -> None:
        """While the engines load what was staged: send what the manifest does not hold."""
        if self._sends_base:
            self.publisher.send(self.policy.model, self.sharded)

    def release_weights(self, manifest: WeightManifest) -> None:
        self.publisher.release(manifest)
        discard(manifest)

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """DeepSpeed's checkpoint of what trains and its optimizer; beside it the layout, the random state of every rank, the
        reference, if it was refreshed, and the caller's state as JSON."""
        path = Path(folder)
        self.ds_engine.save_checkpoint(folder, tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        save_random_state(path, self.rank)
        if isinstance(self.reference, Reference):
            self.reference.save(path, self.rank)
        if self.rank == 0:
            write_record(path, self._layout, self.optimizer_steps, self.ds_engine)
            (path / "state.json").write_text(json.dumps(state, indent=1))

    def load(self, folder: str) -> None:
        """Continue from a checkpoint of the same model. That of another number of ranks or another ZeRO stage too: to
        rounding the same, with random states that begin anew.

        Raises:
            FileNotFoundError: the folder holds no such checkpoint.
        """
        path = Path(folder)
        layout, self.optimizer_steps = read_record(path)
        if layout == self._layout:
            if self.ds_engine.load_checkpoint(folder, tag=TAG, custom_load_fn=load_trained)[0] is None:
                raise FileNotFoundError(f"{folder} holds no learner checkpoint")
        else:
            load_relaid(self.ds_engine, path)
        if layout.ranks == self.ranks:
            load_random_state(path, self.rank)
        if isinstance(self.reference, Reference):
            self.reference.load(path)

    def export(self, folder: str, tokenizer_from: str) -> None:
        """A Hugging Face folder: weights, config, generation config, and the tokenizer of `tokenizer_from`; with
        adapters, the weights are the merged ones, and the adapter is in `adapter/`."""
        export_model(
            self.policy.model,
            Path(folder),
            tokenizer_from,
            rank=self.rank,
            sharded=self.sharded,
            bucket_bytes=self.spec.bucket_bytes,
            trust_remote_code=self.spec.trust_remote_code,
        )

    def close(self) -> None:
        """Free the shared memory of publishes."""
        if hasattr(self, "publisher"):
            self.publisher.close()
            self.adapters.close()

    @property
    def _layout(self) -> Layout:
        return Layout(
            ranks=self.ranks,
            zero_stage=self.ds_engine.zero_optimization_stage(),
            dtype=self.spec.dtype,
            offload_optimizer=self.spec.offload_optimizer,
        )

    def _load_model(self, spec: LearnerSpec) -> Policy | RewardModel:
        if spec.head == "language":
            return self._load_policy(spec.model_path)
        return load_reward_model(spec.model_path, self.dtype, trust_remote_code=spec.trust_remote_code).to(self.device)

    def _open_reference(self, spec: LearnerSpec) -> Reference | BaseReference:
        if spec.lora_rank:
            assert isinstance(self.policy, Policy)
            return BaseReference(self.policy, self.ds_engine)
        return Reference(self._load_policy(spec.reference_path), _deepspeed_config(spec), self.sharded)

    def _load_policy(self, path: str) -> Policy:
        policy = load_policy(
            path,
            self.dtype,
            trust_remote_code=self.spec.trust_remote_code,
            logit_chunk_tokens=self.spec.logit_chunk_tokens,
        )
        return policy.to(self.device)

    def _open_publisher(self, spec: LearnerSpec) -> Any:
        if spec.backend == "shm":
            return SharedMemoryPublisher(self.rank, spec.bucket_bytes, self.dtype)
        from learner.publish.gpu import IpcPublisher, NcclPublisher

        publisher = NcclPublisher if spec.backend == "nccl" else IpcPublisher
        return publisher(self.rank, spec.bucket_bytes, self.dtype)

    def _anchors(
        self, mini_batches: list[list[PackTensors]], temperature: float, objective: Objective
    ) -> list[list[tuple[Tensor | None, Tensor | None]]]:
        """(old_logprobs, ref_logprobs) of every pack, before the first step of the batch.

        With a single mini-batch the old policy is the current one, whose forward pass is made anyway: None.
        """
        if objective not in ("grpo", "dpo"):
            return [[(None, None)] * len(packs) for packs in mini_batches]
        reference = self._needed_reference() if objective == "dpo" else self.reference
        if objective == "grpo" and self.spec.kl_in != "loss":
            reference = None
        clips = objective == "grpo" and len(mini_batches) > 1

        def anchor(pack: PackTensors) -> tuple[Tensor | None, Tensor | None]:
            old = self._forward_tensor(self.ds_engine, pack, temperature) if clips else None
            return old, reference.logprobs(pack, temperature) if reference else None

        return [[anchor(pack) for pack in packs] for packs in mini_batches]

    def _loss(
        self,
        objective: Objective,
        pack: PackTensors,
        temperature: float,
        old_logprobs: Tensor | None,
        ref_logprobs: Tensor | None,
    ) -> LossParts:
        """Forward pass and objective of one pack."""
        if objective == "reward_model":
            scores = self.ds_engine(pack)
            return pairwise_loss(scores, torch.zeros_like(scores).index_add(0, pack.segments, pack.weights))
        if objective == "sft":
            logprobs, entropies = self.ds_engine(pack, temperature)
            return sft_loss(logprobs, entropies, pack.weights)
        if objective == "dpo":
            assert ref_logprobs is not None
            logprobs, _ = self.ds_engine(pack, temperature)
            return dpo_loss(
                logprobs,
                ref_logprobs,
                pack.segments,
                pack.weights,
                beta=self.spec.dpo_beta,
                label_smoothing=self.spec.dpo_label_smoothing,
            )
        logprobs, entropies = self.ds_engine(pack, temperature, self.spec.entropy_coef != 0)
        tokens = Tokens(
            logprobs=logprobs,
            old_logprobs=logprobs.detach() if old_logprobs is None else old_logprobs,
            rollout_logprobs=pack.rollout_logprobs,
            ref_logprobs=ref_logprobs,
            entropies=entropies,
            advantages=pack.advantages,
            weights=pack.weights,
            segments=pack.segments,
        )
        return policy_loss(tokens, self.spec)

    def _model_flops(self, batch: TrainingBatch, objective: Objective) -> float:
        anchors = 0
        if objective == "grpo":
            anchors = (len(batch.packs) > 1) + (self.reference is not None and self.spec.kl_in == "loss")
        if objective == "dpo":
            anchors = 1
        packs = (pack for mini in batch.packs for pack in mini[self.rank])
        return (TRAIN + anchors) * self.cost.forward_flops(packs)

    @torch.no_grad()
    def _score(self, pack: PackTensors, temperature: float) -> Tensor:
        """[at least S] what ranks each sequence of a pack."""
        if self.spec.head == "score":
            scores: Tensor = self.ds_engine(pack)
            return scores
        logprobs = self._forward_tensor(self.ds_engine, pack, temperature)
        reference = self._needed_reference().logprobs(pack, temperature)
        return implicit_rewards(logprobs, reference, pack.segments, self.spec.dpo_beta)

    def _needed_reference(self) -> Reference | BaseReference:
        if self.reference is None:
            raise InputError("DPO compares the policy with a frozen reference, and none was opened (reference_path)")
        return self.reference

    def _plain_grad_norm(self) -> Tensor | None:
        """Of the reduced gradients, where DeepSpeed wraps no optimizer and so reports none (stage 0 in float32)."""
        if self.spec.zero_stage > 0 or self.spec.dtype != "float32":
            return None
        return torch.nn.utils.get_total_norm([p.grad for p in self.policy.parameters() if p.grad is not None])

    def _set_learning_rate(self) -> float:
        rate = learning_rate(
            self.optimizer_steps,
            peak=self.spec.lr,
            warmup_steps=self.spec.warmup_steps,
            total_steps=self.spec.total_steps,
            schedule=self.spec.schedule,
        )
        for group in self.ds_engine.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _forward_tensor(self, module: Any, pack: PackTensors, temperature: float) -> Tensor:
        logprobs: Tensor = module(pack, temperature)[0]
        return logprobs

    def _forward(self, module: Any, pack: PackTensors, temperature: float) -> np.ndarray:
        values: np.ndarray = self._forward_tensor(module, pack, temperature).float().cpu().numpy()
        return values


def _numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """Read from the device in one go."""
    return dict(zip(values, torch.stack([value.detach().double() for value in values.values()]).tolist(), strict=True))


def _deepspeed_config(spec: LearnerSpec) -> dict[str, Any]:
    """Of bfloat16 only what is computed with: master weights, gradient sums and their reduction are float32.

    DeepSpeed sums gradients in float32 from stage 1 on only, so stage 0 becomes 1: the same update with less memory.
    """
    half = spec.dtype == "bfloat16"
    zero: dict[str, Any] = {"stage": max(spec.zero_stage, int(half))}
    if spec.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        # Micro-batches differ in size and number, so the boundary is set by hand and the loss is already normalised.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": spec.max_grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


# The pack type is part of this module's interface: a batch is made of them.
__all__ = ["LearnerRank", "Objective", "Pack", "RankStats"]
