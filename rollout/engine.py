"""vLLM behind the few verbs that RayZero needs: generate a group, load weights, tell the version.

The only module of the driver and the actors that imports vLLM, and only when an engine is started.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from rollout.errors import ServiceError
from rollout.text import CompletionText
from rollout.types import Completion, FinishReason, Prompt, Sampling
from rollout.weights.manifest import Backend, LoadReport, WeightManifest, open_verified


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Settings of one engine."""

    dtype: Literal["float32", "bfloat16"]
    trust_remote_code: bool
    max_tokens: int
    """Tokens of the longest prompt and its completion together."""
    max_sequences: int
    tensor_parallel: int
    kv_cache_gb: int
    gpu_memory: float
    eager: bool
    backend: Backend
    """Way by which weights arrive."""
    device: Literal["cpu", "cuda"]
    sleeps: bool = False
    """Whether it leaves the GPU's memory to a learner rank when it is told to."""
    held_bytes: int = 0
    """Memory of its GPU that others hold while it samples."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of vLLM's engine, by their own names; they stand above those that are chosen here."""
    lora_rank: int = 0
    """Largest rank of the adapter that the engine applies; 0: none."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that have adapters; empty: all linear ones but the head."""


LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of an adapter that vLLM makes room for; a smaller rank is padded with zeros."""

PREFILL_TOKENS = 8192
"""Tokens, at least, that an engine on a GPU computes in one step: long prompts and many sequences at a time."""

STREAM_TOKENS = 256
"""Tokens of a completion that leave the engine together."""

Finished = tuple[int, Completion]
"""A completion that has ended: (index in its group, completion)."""


class VllmEngine:
    """One `AsyncLLM`. Create inside a running event loop, with `await VllmEngine.start(...)`."""

    def __init__(self, llm: Any, text: CompletionText, replica: int, spec: EngineSpec) -> None:
        self._llm = llm
        self._text = text
        self._replica = replica
        self._spec = spec
        self._loads = 0
        self._loading = asyncio.Lock()
        self._asleep = False
        self._adapter: Any = None
        self._checksums: dict[str, tuple[str, ...]] = {}
        self._broken = ""
        self.num_tokens = 0
        """Completion tokens that it has sampled: what shows that it gets on."""

    @classmethod
    async def start(cls, replica: int, spec: EngineSpec, model_path: str) -> "VllmEngine":
        """Start vLLM's processes and load the model (folder or hub id) as policy version 0. Takes 10 s and more."""
        prepare(spec)
        from vllm import AsyncEngineArgs
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest
        from vllm.v1.engine.async_llm import AsyncLLM

        from rollout.weights.vllm_plugin import register, vllm_name

        register()
        lora: dict[str, Any] = {}
        if spec.lora_rank:
            lora = {
                "enable_lora": True,
                "max_loras": 1,
                "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= spec.lora_rank),
                # Of other layers, such as the head of some models, vLLM would multiply by zeros, which costs as much.
                "lora_target_modules": list(spec.lora_targets or _linear_layers(model_path, spec.trust_remote_code)),
            }
        chosen = {"enable_prefix_caching": True} | (
            _gpu_arguments(spec) if spec.device == "cuda" else _cpu_arguments(spec)
        )
        args = AsyncEngineArgs(
            model=model_path,
            dtype=spec.dtype,
            trust_remote_code=spec.trust_remote_code,
            max_model_len=spec.max_tokens,
            max_num_seqs=spec.max_sequences,
            tensor_parallel_size=spec.tensor_parallel,
            # A single worker lives in the engine core's process: one import of torch and one hop a token less. Several are
            # its children. Left alone, vLLM would take Ray for them, since the actor is in a placement group.
            distributed_executor_backend="uni" if spec.tensor_parallel == 1 else "mp",
            # The distribution that tokens are drawn from, temperature included: what the learner must reproduce.
            logprobs_mode="processed_logprobs",
            weight_transfer_config=WeightTransferConfig(backend=vllm_name(spec.backend)),
            # Of every completion the first token, then many at once: enough to see that the engine gets on.
            stream_interval=STREAM_TOKENS,
            disable_log_stats=True,
            **_with_options(chosen, spec.options),
            **lora,
        )
        llm = AsyncLLM.from_engine_args(args)
        await llm.update_weight_version("0")
        if spec.backend != "nccl":
            await llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
        tokenizer = llm.get_tokenizer()
        if asyncio.iscoroutine(tokenizer):
            tokenizer = await tokenizer
        text = CompletionText.of(tokenizer, llm.model_config.try_get_generation_config())
        return cls(llm, text, replica, spec)

    async def generate(self, group_id: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[list[Finished]]:
        """The whole group as one request, so that its prompt is computed once; completions come as they finish.

        Requests in flight survive a `load`: their later tokens carry the new version.

        Raises:
            ServiceError: the engine ended before every completion was there, or is asleep.
        """
        self._check()
        if self._asleep:
            raise ServiceError(
                f"replica {self._replica} sleeps until it is given weights; group {group_id} came too early"
            )
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            # FINAL_ONLY would hold every completion back until the slowest of the group is done.
            output_kind=RequestOutputKind.DELTA,
        )
        # A cached prefix belongs to the weights that computed it: the salt keeps versions apart.
        tokens = TokensPrompt(prompt_token_ids=list(prompt.token_ids), cache_salt=str(self._loads))
        pieces: dict[int, _Pieces] = {index: _Pieces() for index in range(sampling.n)}
        # Requests of a retried group must not share an id with the first try.
        request = f"{group_id}@{time.monotonic_ns()}"
        async for output in self._llm.generate(tokens, params, request, lora_request=self._adapter):
            self.num_tokens += sum(len(part.token_ids) for part in output.outputs)
            ended = [part.index for part in output.outputs if pieces[part.index].add(part)]
            if ended:
                yield [(index, pieces.pop(index).completion(self._text, sampling.seed + index)) for index in ended]
        if pieces:
            raise ServiceError(
                f"replica {self._replica} ended group {group_id} without {len(pieces)} of its {sampling.n} completions"
            )

    async def load(self, manifest: WeightManifest) -> LoadReport:
        """Swap in the weights of a manifest between two tokens of whatever is being generated.

        Raises:
            ServiceError: the weights arrived damaged; the engine then must not serve.
        """
        async with self._loading:
            self._check()
            for file in manifest.adapter:
                open_verified(file.path, file.num_bytes, file.checksum)
            paused = time.perf_counter()
            if self._asleep:
                await self._llm.wake_up(["weights"])
            if manifest.has_base or manifest.adapter:
                await self._swap(manifest)
            else:
                # The same weights under another number.
                await self._llm.update_weight_version(str(manifest.version))
            if self._asleep:
                # Only now: until here its memory may serve as room for the weights on their way.
                await self._llm.wake_up(["kv_cache"])
                self._asleep = False
            return LoadReport(
                replica=self._replica,
                version=manifest.version,
                checksums=tuple(chain.from_iterable(self._checksums.values())),
                pause_seconds=time.perf_counter() - paused,
            )

    async def sleep(self) -> bool:
        """Leave the GPU's memory to others until the next `load`; requests in flight end first, later ones wait.

        Returns whether the engine still holds its weights (in the host's memory): with adapters it does, since only those
        are sent; else the next load must bring them.
        """
        async with self._loading:
            if not self._asleep:
                await self._llm.sleep(level=1 if self._spec.lora_rank else 2, mode="wait")
                self._asleep = True
        return self._spec.lora_rank > 0

    async def version(self) -> int:
        """The policy version that vLLM itself reports. It is asked between two steps of its core, so an answer shows that
        these go on."""
        self._check()
        return int(await self._llm.get_weight_version())

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        """Handshake of vLLM's own backends (`nccl`, `ipc`); blocks until the learner's side has joined."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    async def close(self) -> None:
        """End vLLM's processes."""
        self._llm.shutdown()

    def _check(self) -> None:
        if self._broken:
            raise ServiceError(f"replica {self._replica} holds half of two versions: {self._broken}")

    async def _swap(self, manifest: WeightManifest) -> None:
        """Weights change while generation stands still. Where that fails half-way nothing is sampled from them any more."""
        # `keep`: requests in flight stay in the queue with their KV cache and go on afterwards.
        await self._llm.pause_generation(mode="keep", clear_cache=False)
        try:
            if manifest.has_base:
                await self._load_base(manifest)
            if manifest.adapter:
                await self._load_adapter(manifest)
            self._loads += 1
            await self._llm.update_weight_version(str(manifest.version))
        except BaseException as problem:
            # It stays paused. The pool ends it; whoever asks before that is told.
            self._broken = f"version {manifest.version} failed: {problem}"
            raise
        await self._llm.resume_generation()

    async def _load_base(self, manifest: WeightManifest) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._llm.start_weight_update()
        for payload in _payloads(manifest):
            await self._llm.update_weights(WeightTransferUpdateRequest(update_info=payload))
        # vLLM drops its adapters here: they belong to the weights that are gone.
        await self._llm.finish_weight_update()
        self._adapter = None
        # The workers have compared what arrived with what was sent, bucket by bucket or as a whole.
        self._checksums = {"base": tuple(f"{bucket.checksum:08x}" for bucket in manifest.buckets)}

    async def _load_adapter(self, manifest: WeightManifest) -> None:
        """Requests in flight name the same adapter before and after, so they go on with the new one."""
        from vllm.lora.request import LoRARequest

        folder = str(Path(manifest.adapter[0].path).parent)
        if not await self._llm.add_lora(LoRARequest("policy", 1, folder, load_inplace=True)):
            raise ServiceError(f"replica {self._replica}: vLLM did not take the adapter of version {manifest.version}")
        # Without `load_inplace`: a request uses what is loaded. It would fail, not read the path, if nothing were.
        self._adapter = LoRARequest("policy", 1, "loaded")
        self._checksums["adapter"] = tuple(f"{file.checksum:08x}" for file in manifest.adapter)


def prepare(spec: EngineSpec) -> None:
    """Import vLLM, which takes seconds, under the environment that the engine needs."""
    os.environ.update(_environment(spec))
    import vllm.v1.engine.async_llm  # noqa: F401


def _environment(spec: EngineSpec) -> dict[str, str]:
    """Read by vLLM at import; its processes inherit it."""
    quiet = {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"), "VLLM_NO_USAGE_STATS": "1"}
    if spec.device == "cuda":
        # Where a layer got no weights vLLM says so by a warning alone.
        return quiet | {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
    return quiet | {
        "VLLM_CPU_KVCACHE_SPACE": str(spec.kv_cache_gb),
        # Binding every engine to the same first cores would make replicas and the learner fight for them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Lets the executor be chosen below; the engine core stays a process of its own either way.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if spec.tensor_parallel == 1 else "1",
    }


def _with_options(chosen: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of both, such as `hf_overrides`, are put together."""
    merged = {
        name: {**chosen[name], **value}
        if isinstance(value, Mapping) and isinstance(chosen.get(name), Mapping)
        else value
        for name, value in options.items()
    }
    return chosen | merged


def _cpu_arguments(spec: EngineSpec) -> dict[str, Any]:
    return {
        # On a CPU host vLLM reads this as the share of RAM that must be free at the start.
        "gpu_memory_utilization": 0.05,
        "enforce_eager": True,
        # A seeded request whose prompt is computed in pieces ends vLLM's core on a CPU host ("CPU Generator does not use
        # offset", vLLM 0.32), so there a prompt is computed whole or waits.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(spec.max_tokens, 4096),
    }


def _gpu_arguments(spec: EngineSpec) -> dict[str, Any]:
    from vllm.platforms import current_platform

    total = current_platform.get_device_total_memory()
    return {
        "gpu_memory_utilization": min(spec.gpu_memory, 1 - spec.held_bytes / total),
        "enforce_eager": spec.eager,
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": max(PREFILL_TOKENS, spec.max_sequences),
        "enable_sleep_mode": spec.sleeps,
        # As in the learner (learner/model/head.py): logits that are rounded to 16 bits alone move logprobs by up to 0.06.
        "hf_overrides": {} if spec.dtype == "float32" else {"head_dtype": "float32"},
    }


def _linear_layers(model_path: str, trust_remote_code: bool) -> list[str]:
    """Names of the linear layers of a model, without its head: what peft calls "all-linear"."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    layers = (name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not head)
    return sorted({name.rpartition(".")[2] for name in layers})


def _payloads(manifest: WeightManifest) -> list[dict[str, Any]]:
    if manifest.backend == "shm":
        return [asdict(bucket) for bucket in manifest.buckets]
    return [manifest.payload]


class _Pieces:
    """One completion on its way out of the engine."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._end: Any = None

    def add(self, part: Any) -> bool:
        """Take vLLM's next part; whether it was the last."""
        self.token_ids += part.token_ids
        self._logprobs += part.logprobs.logprobs
        if part.finish_reason is None:
            return False
        self._end = part
        return True

    def completion(self, text_of: CompletionText, seed: int) -> Completion:
        token_ids = np.array(self.token_ids, dtype=np.int32)
        logprobs = np.array(self._logprobs, dtype=np.float32)
        spans = self._end.weight_versions
        if spans is None or len(logprobs) != len(token_ids):
            raise ServiceError(
                f"vLLM returned {len(token_ids)} tokens with {len(logprobs)} logprobs and versions {spans}"
            )
        versions = np.zeros(len(token_ids), dtype=np.int32)
        for span in spans:
            versions[span.start : span.end] = int(span.version)
        reason = self._end.finish_reason
        if reason not in ("stop", "length"):
            raise ServiceError(f"a completion was cut from outside after {len(token_ids)} tokens: {reason}")
        return Completion(
            text=text_of(self.token_ids),
            token_ids=token_ids,
            rollout_logprobs=logprobs,
            policy_versions=versions,
            finish_reason=cast(FinishReason, reason),
            seed=seed,
        )
