"""A model that trains: a module inside a DeepSpeed engine, with its optimizer, learning rate, reference and checkpoint.

A rank may hold several, each with a spec, an optimizer, a count of steps and a checkpoint folder of its own; they share the
processes and the device.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.batch import Pack
from learner.checkpoint import TAG, Layout, load_other_layout, optimized_weights, read_record, write_record
from learner.learning_rate import learning_rate
from learner.model.fused import LEAST_PARAMETERS, compile_layers
from learner.model.lora import BaseReference, add_adapters, load_trained
from learner.model.placing import place, read_once
from learner.model.policy import PackTensors, Policy, RewardModel, load_policy, load_reward_model, to_device
from learner.model.reference import FrozenPolicy, Reference, refresh_is_due
from learner.model.sequence import SequenceGroup
from learner.model.writable import check_written_back, make_writable
from learner.spec import LearnerSpec
from learner.throughput import ModelCost
from rollout.errors import InputError
from rollout.weights.digest import Digest


class TrainedModel:
    """This rank's part of one model. Every method is collective over the ranks."""

    def __init__(
        self, spec: LearnerSpec, *, rank: int, ranks: int, device: torch.device, group: SequenceGroup | None = None
    ) -> None:
        """Load the weights and, where the spec names one, the reference.

        Args:
            group: ranks that pass packs together; None: this one passes its own alone.

        Raises:
            InputError: the model cannot be loaded or written back, or has no layers of the names that adapters are asked for.
        """
        import deepspeed

        self.spec = spec
        self.rank, self.ranks, self.device, self.group = rank, ranks, device, group
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self.sharded = spec.zero_stage == 3
        """Whether a parameter is whole only while it is gathered."""
        self.module = read_once(self._read, rank, ranks)
        self.cost = ModelCost.of(self.module.model)
        if spec.lora_rank:
            add_adapters(self.module, spec)
        self.num_parameters = sum(parameter.numel() for parameter in self.module.parameters())
        if spec.activation_checkpointing:
            self.module.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.module.train()  # models are loaded for inference, and `transformers` recomputes only in training
        self.compiled_layers = 0
        """Layers that are compiled: on a GPU, unless the model is small or DeepSpeed takes their parameters apart (ZeRO 3)."""
        if device.type == "cuda" and not self.sharded and self.num_parameters >= LEAST_PARAMETERS:
            self.compiled_layers = compile_layers(self.module.model)
        place(self.module, _deepspeed_config(spec), device, ranks)
        self.engine: Any = deepspeed.initialize(
            model=self.module,
            optimizer=_optimizer(self.module, spec, device),
            config=_deepspeed_config(spec),
            dist_init_required=False,
        )[0]
        """The module to be called where gradients are wanted."""
        self.reference = self._open_reference()
        """Frozen copy of what the policy began as or was at the last refresh; None: the spec names none."""
        self.layout = Layout(
            ranks=ranks,
            zero_stage=self.engine.zero_optimization_stage(),
            dtype=spec.dtype,
            offload_optimizer=spec.offload_optimizer,
        )
        self.optimizer_steps = 0
        """Optimizer steps since the stage began."""

    def share_of(self, mini_batch: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """The packs of a mini-batch, as learner.batch.make_batch cut it, that this rank passes, alone or with its group."""
        return mini_batch[self.group.number if self.group else self.rank]

    def tensors(self, pack: Pack) -> PackTensors:
        """A pack on this rank's device, or this rank's share in it."""
        return to_device(pack, self.device, self.group)

    @property
    def answers(self) -> bool:
        """Whether this rank tells what was found about its packs: one of those that pass them does."""
        return self.group is None or self.group.index == 0

    def plan(self, total_steps: int, warmup_steps: int) -> None:
        """Set the length of the stage and of its warm-up, in optimizer steps."""
        self.spec = replace(self.spec, total_steps=total_steps, warmup_steps=warmup_steps)

    @property
    def rate(self) -> float:
        """Learning rate of the next optimizer step."""
        return learning_rate(
            self.optimizer_steps,
            peak=self.spec.lr,
            warmup_steps=self.spec.warmup_steps,
            total_steps=self.spec.total_steps,
            schedule=self.spec.schedule,
        )

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch.

        Args:
            loss: [] this rank's share of the objective.
            last: whether the optimizer step follows.
        """
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages gradients over ranks; the weights already hold the mean over the whole batch.
        self.engine.backward(loss * self.ranks)

    def step(self) -> float:
        """One optimizer step with the gradients that were added; returns their global norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = self.rate
        norm = self._plain_grad_norm()
        self.engine.step()
        self.optimizer_steps += 1
        return float(self.engine.get_global_grad_norm() if norm is None else norm)

    @torch.no_grad()
    def logprobs(self, pack: PackTensors, temperature: float) -> Tensor:
        """[N] float32 log-probabilities of the targets, without gradient. For a language model."""
        logprobs: Tensor = self.engine(pack, temperature)[0]
        return logprobs

    @property
    def needed_reference(self) -> FrozenPolicy:
        """The reference.

        Raises:
            InputError: none was opened.
        """
        if self.reference is None:
            raise InputError(
                "the policy is to be compared with a frozen reference, and none was opened (reference_path)"
            )
        return self.reference

    def refresh_reference(self, steps_before: int) -> None:
        """Let the reference take the weights, if that became due since `steps_before` optimizer steps."""
        reference, every = self._second_model, self.spec.reference_refresh_steps
        if reference and refresh_is_due(steps_before, self.optimizer_steps, every):
            assert isinstance(self.module, Policy)
            reference.refresh(self.module)

    def digest(self) -> str:
        """Digest of the weights that this rank's optimizer holds: all of them at stage 0, its share of them from there on."""
        digest = Digest()
        for name, weights in optimized_weights(self.engine):
            digest.add(name, weights)
        return digest.value().hex()

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint, of all ranks together: weights and two moments in float32, and weights in the dtype if that is another."""
        count = sum(getattr(p, "ds_numel", p.numel()) for p in self.module.parameters() if p.requires_grad)
        return count * (12 + (self.dtype.itemsize if self.spec.dtype != "float32" else 0))

    def save(self, folder: Path) -> None:
        """DeepSpeed's checkpoint of what trains and its optimizer; beside it the layout and a refreshed reference."""
        self.engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        if reference := self._second_model:
            reference.save(folder, self.rank)
        if self.rank == 0:
            write_record(folder, self.layout, self.optimizer_steps, self.engine)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint of the same model, in this layout or another.

        Raises:
            FileNotFoundError: the folder holds no such checkpoint.
            InputError: the checkpoint was made with other adapters.
        """
        layout, self.optimizer_steps = read_record(folder)
        if layout == self.layout:
            if self.engine.load_checkpoint(str(folder), tag=TAG, custom_load_fn=load_trained)[0] is None:
                raise FileNotFoundError(f"{folder} holds no learner checkpoint")
        else:
            load_other_layout(self.engine, folder)
        if reference := self._second_model:
            reference.load(folder)

    def close(self) -> None:
        """Take off what DeepSpeed hung on the module, so that its memory can go."""
        self.engine.destroy()

    @property
    def _second_model(self) -> Reference | None:
        """The reference where it has weights of its own, and is not the policy without its adapters."""
        return self.reference if isinstance(self.reference, Reference) else None

    def _read(self, empty: bool) -> Policy | RewardModel:
        """The module that trains; what is read can be written back too, or it is an InputError."""
        module = load_module(self.spec, empty=empty)
        if not empty:
            check_written_back(module.model, self.spec.model_path, trust_remote_code=self.spec.trust_remote_code)
        return module

    def _open_reference(self) -> FrozenPolicy | None:
        if not self.spec.reference_path:
            return None
        if self.spec.lora_rank:
            assert isinstance(self.module, Policy)
            return BaseReference(self.module, self.engine)
        config = _deepspeed_config(self.spec)
        policy = read_once(partial(_load_policy, self.spec.reference_path, self.spec), self.rank, self.ranks)
        return Reference(place(policy, config, self.device, self.ranks), config, self.sharded)

    def _plain_grad_norm(self) -> Tensor | None:
        """Norm of the reduced gradients where DeepSpeed wraps no optimizer and so reports none (stage 0 in float32)."""
        if self.spec.zero_stage > 0 or self.spec.dtype != "float32":
            return None
        return torch.nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])


def load_module(spec: LearnerSpec, empty: bool = False) -> Policy | RewardModel:
    """The weights that a spec starts from, on the CPU in its dtype, as a model that can be written back; without adapters.

    Args:
        empty: without values (on torch's `meta` device): another rank reads them.

    Raises:
        InputError: the model cannot be loaded.
    """
    match spec.head:
        case "language":
            module: Policy | RewardModel = _load_policy(spec.model_path, spec, empty)
        case "score":
            dtype = getattr(torch, spec.dtype)
            module = load_reward_model(spec.model_path, dtype, trust_remote_code=spec.trust_remote_code, empty=empty)
    if not empty:
        make_writable(module.model)
    return module


def _load_policy(path: str, spec: LearnerSpec, empty: bool) -> Policy:
    return load_policy(
        path,
        getattr(torch, spec.dtype),
        trust_remote_code=spec.trust_remote_code,
        logit_chunk_tokens=spec.logit_chunk_tokens,
        empty=empty,
    )


def _optimizer(module: torch.nn.Module, spec: LearnerSpec, device: torch.device) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=spec.lr,
        betas=(spec.beta1, spec.beta2),
        weight_decay=spec.weight_decay,
        # On the CPU the fused step is vectorised and threaded: what DeepSpeed's own CPU optimizer, which compiles
        # for minutes at first use, is for. On a GPU it is one kernel without temporaries, in place of a dozen.
        fused=spec.zero_stage == 0 or spec.offload_optimizer or device.type == "cuda",
    )


def _deepspeed_config(spec: LearnerSpec) -> dict[str, Any]:
    """Settings of an engine. Only the computation is in bfloat16: master weights and gradient sums are float32, and so is their
    reduction unless the spec says otherwise.

    DeepSpeed sums gradients in float32 from stage 1 on only, so stage 0 becomes 1: the same update with less memory.
    """
    half = spec.dtype == "bfloat16"
    zero: dict[str, Any] = {"stage": max(spec.zero_stage, int(half))}
    if spec.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if spec.zero_hpz_partition_size > 1:
        zero["zero_hpz_partition_size"] = spec.zero_hpz_partition_size
    return {
        # Micro-batches differ in size and number, so the boundary is set by hand and the loss is already normalised.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": spec.max_grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": {"float32": "fp32", "bfloat16": "bf16"}[spec.reduce_dtype],
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
