"""One learner rank: the verbs of learner/verbs.py on the models that it holds.

Plain Python round DeepSpeed engines; the Ray actor in learner/service.py only forwards to it. Every verb is collective: all
ranks call it with the same arguments, and each picks its own share.
"""

import gc
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from learner.batch import Pack, TrainingBatch
from learner.checkpoint import (
    TAG,
    file_digests,
    is_record,
    load_random_state,
    rank_of,
    read_record,
    save_random_state,
)
from learner.export import export_model
from learner.losses.kl import kl_estimate
from learner.model.policy import PackTensors
from learner.model.sequence import SequenceGroup
from learner.objectives import OBJECTIVES, RANKED_BY, Objective
from learner.peak import peak_of
from learner.progress import Progress
from learner.publish.model import ModelPublisher
from learner.rendezvous import Rendezvous, meet
from learner.spec import Head, LearnerSpec, ObjectiveName
from learner.stats import RankStats, merge_figures
from learner.storage import check_room, storing
from learner.throughput import memory_peak, reset_memory_peak
from learner.trained_model import TrainedModel
from rollout.errors import InputError, ServiceError
from rollout.faults import reach
from rollout.storage.folders import fetch, local_folder, written
from rollout.storage.host import drop
from rollout.storage.objects import StoredFile
from rollout.storage.uri import is_uri
from rollout.weights.manifest import SHARED_MEMORY, WeightManifest

_HOST = torch.device("cpu")


class LearnerRank:
    """One rank: the process group, the models that train in it, and what all of them share.

    The first model of `open` is the stage's own: it is scored, published and exported, and its checkpoint is the checkpoint's
    own folder. Those beside it only train; each has a folder in the checkpoint that is called after its head.
    """

    def __init__(
        self,
        rank: int,
        ranks: int,
        place: Rendezvous,
        threads: int,
        timeout_s: float,
        progress: Progress | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
        listening: socket.socket | None = None,
    ) -> None:
        """Meet the other ranks.

        Args:
            listening: rank 0's socket at `place`, if it has been opened already.

        Raises:
            ServiceError: the rank is to compute on a GPU, and CUDA does not come up.
        """
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=os.environ.get("LOCAL_RANK", "0"),
            WORLD_SIZE=str(ranks),
            MASTER_ADDR=place.address,
            MASTER_PORT=str(place.port),
        )
        import deepspeed

        self.rank, self.ranks = rank, ranks
        cuda = device == "cuda"
        self.device = torch.device("cuda", 0) if cuda else torch.device("cpu")
        if cuda:
            start_cuda(rank)
        if threads:
            torch.set_num_threads(threads)
        # The op compiles for a minute with g++ at first use, serves ranks of one host only, and lets peers hang where a
        # CPU lacks its vector instructions. Gloo does the same work everywhere.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        meet(place, rank, ranks, timeout_s, self.device, listening)
        # Takes the group that is there.
        deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)
        self.progress = progress or Progress()
        self.progress.watch_collectives()
        self._sequence_groups: dict[int, SequenceGroup | None] = {1: None}
        """Ranks that pass a pack together → their group."""
        self.models: dict[Head, TrainedModel] = {}
        """The models that train, by the head that an objective asks for; the stage's own comes first."""
        self._publisher: ModelPublisher | None = None

    @property
    def model(self) -> TrainedModel:
        """The stage's own model."""
        assert self.models, "no model is open"
        return next(iter(self.models.values()))

    @property
    def publisher(self) -> ModelPublisher:
        """What sends the stage's own model to the engines: made once, with the first model."""
        assert self._publisher is not None, "no model was opened"
        return self._publisher

    def open(self, spec: LearnerSpec, *beside: LearnerSpec) -> int:
        """Load the model of a stage (dropping those before); returns its number of parameters.

        Args:
            beside: models of other heads that train in the same processes.

        Raises:
            InputError: a model cannot be loaded.
        """
        self._drop_models()
        torch.manual_seed(spec.seed)
        self._open(spec)
        for other in beside:
            # Draws of its own, so that the stage's model is what it would be alone.
            with torch.random.fork_rng():
                torch.manual_seed(other.seed)
                self._open(other)
        if self._publisher is None:
            self._publisher = ModelPublisher(self.rank, spec.backend, spec.bucket_bytes, self.model.dtype)
        return self.model.num_parameters

    def plan(self, total_steps: int, warmup_steps: int) -> None:
        """How many optimizer steps the stage has, where that is known only after the model was opened."""
        for model in self.models.values():
            model.plan(total_steps, warmup_steps)

    def train(self, batch: TrainingBatch, objective: ObjectiveName) -> RankStats:
        """One optimizer step a mini-batch; the policy before the first of them anchors the clip.

        Raises:
            InputError: the objective needs a reference or a model that was not opened.
        """
        goal = OBJECTIVES[objective]
        model = self._trained_by(goal, objective)
        peak = peak_of(self.device, model.dtype)
        reset_memory_peak(self.device)
        began, steps_before = time.perf_counter(), model.optimizer_steps
        self._at("anchors", "log-probabilities before the first step")
        count = len(batch.packs)
        # A batch may be gigabytes, and a GPU holds a pack of it at a time; anchors wait on the host for their turn.
        shares = [model.share_of(mini) for mini in batch.packs]
        anchors = [
            [goal.anchors(model, model.tensors(pack), batch.temperature, count).to(_HOST) for pack in share]
            for share in shares
        ]
        figures: list[dict[str, float]] = []
        parts: Counter[str] = Counter()
        norms, lr = [], model.rate
        for number, (share, anchor) in enumerate(zip(shares, anchors, strict=True), 1):
            lr = model.rate
            for i, (pack, before) in enumerate(zip(share, anchor, strict=True), 1):
                self._at("forward", f"mini-batch {number} of {count}, micro-batch {i} of {len(share)}")
                tensors = model.tensors(pack)
                loss = goal.loss(model, tensors, batch.temperature, before.to(self.device))
                self._at("backward")
                model.backward(loss.loss, last=i == len(share))
                if model.answers:
                    figures.append(_numbers(loss.figures))
                    parts.update(_numbers(loss.parts))
            self._at("optimizer", f"mini-batch {number} of {count}, optimizer step")
            norms.append(model.step())
            self._at("stepped")
        model.refresh_reference(steps_before)
        own = (pack for share in shares for pack in share if model.answers)
        flops, seconds = goal.forward_passes(model, count) * model.cost.forward_flops(own), time.perf_counter() - began
        return RankStats(
            figures=merge_figures(figures),
            parts={name: share / count for name, share in parts.items()},
            grad_norm=sum(norms) / max(len(norms), 1),
            lr=lr,
            seconds=seconds,
            optimizer_steps=model.optimizer_steps,
            model_flops=flops,
            peak_flops=peak.raise_to(flops / seconds),
            memory_peak=memory_peak(self.device),
            weights=model.digest(),
        )

    def kl_to_reference(self, batch: TrainingBatch) -> tuple[np.ndarray, np.ndarray]:
        """([S] indices of this rank's sequences in the batch, [S] float64 KL estimate summed over the targets of each).

        Raises:
            InputError: no reference was opened.
        """
        self._at("kl_to_reference")
        model, indices, sums = self.model, [], []
        for pack, tensors, answers in self._own(batch):
            logprobs = model.logprobs(tensors, batch.temperature)
            reference = model.needed_reference.logprobs(tensors, batch.temperature)
            kl = kl_estimate(logprobs, reference, model.spec.kl_estimator).double().cpu().numpy()
            if answers:
                indices.append(pack.indices)
                sums.append(np.bincount(pack.segments, kl, minlength=len(pack.indices)))
        return np.concatenate([np.empty(0, np.int64), *indices]), np.concatenate([np.empty(0), *sums])

    def scores(self, batch: TrainingBatch) -> tuple[np.ndarray, np.ndarray]:
        """([S] indices of this rank's sequences in the batch, [S] float64 what ranks the answers to a prompt).

        A reward model's score; of a policy DPO's implicit reward, β log(π / π_ref) of the completion.

        Raises:
            InputError: a policy without a reference.
        """
        ranking, indices, found = RANKED_BY[self.model.spec.head], [], []
        for pack, tensors, answers in self._own(batch):
            values = ranking.scores(self.model, tensors, batch.temperature)
            if answers:
                indices.append(pack.indices)
                found.append(values[: len(pack.indices)].double().cpu().numpy())
        return np.concatenate([np.empty(0, np.int64), *indices]), np.concatenate([np.empty(0), *found])

    def logprobs(self, batch: TrainingBatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(index of the sequence in the batch, learner's logprob, sampler's logprob) of this rank's targets, pack by pack, each
        [N]."""
        self._at("logprobs")
        found = []
        for pack, tensors, answers in self._own(batch):
            values = self.model.logprobs(tensors, batch.temperature).float().cpu().numpy()
            if answers:
                found.append((pack.indices[pack.segments], values, pack.rollout_logprobs))
        return found

    def stage_weights(self, version: int, base: bool = True, adapter: bool = True) -> WeightManifest | None:
        """Make the current weights ready to be loaded as `version`; the manifest on rank 0.

        Args:
            base: whether the engines lack the model as it is, but for its adapters.
            adapter: whether they lack the adapters, if it has any.
        """
        self._at("stage_weights")
        model = self.model
        adapter = adapter and model.spec.lora_rank > 0
        in_memory = base and self.publisher.backend == "shm" and self.rank == 0
        size = model.num_parameters * model.dtype.itemsize if in_memory else 0
        check_room(SHARED_MEMORY, size, self.ranks, self.device)
        with storing(SHARED_MEMORY):
            return self.publisher.stage(model.module.model, version, model.sharded, base=base, adapter=adapter)

    def meet_engines(self, address: str, port: int, world_size: int) -> None:
        """Form the group that weights are broadcast in (nccl)."""
        self.publisher.connect(address, port, world_size)

    def send_weights(self) -> None:
        """While the engines load what was staged: send what the manifest does not hold."""
        self._at("send_weights")
        self.publisher.send(self.model.module.model, self.model.sharded)

    def release_weights(self, manifest: WeightManifest) -> None:
        """Free what was staged: the engines have it."""
        self.publisher.release(manifest)

    def save(self, folder: str, state: dict[str, Any]) -> list[StoredFile]:
        """The checkpoint of every model; beside them the random state of every rank and the caller's state as JSON. Returns what
        this rank put in a storage, where `folder` is in one.

        Raises:
            OSError: with its path; where there is too little room, before anything is written, and on all ranks.
        """
        self._at("save")
        needed = sum(model.checkpoint_bytes for model in self.models.values())
        with written(folder) as (path, files), storing(path):
            # On its way to a storage a rank's share alone is on its disk.
            check_room(path, needed // self.ranks if is_uri(folder) else needed, self.ranks, self.device)
            for model, place in self._places(path):
                self.progress.at(f"checkpoint of the model with a {model.spec.head} head")
                # In a storage each rank fills a folder of its own, which DeepSpeed makes on one.
                (place / TAG).mkdir(parents=True, exist_ok=True)
                model.save(place)
            save_random_state(path, self.rank)
            if self.rank == 0:
                (path / "state.json").write_text(json.dumps(state, indent=1))
        return files

    def load(self, folder: str) -> None:
        """Continue from a checkpoint of the same models. That of another number of ranks or another ZeRO stage too: to
        rounding the same, with random states that begin anew.

        Raises:
            FileNotFoundError: the folder holds no such checkpoint.
            InputError: the checkpoint was made with other adapters.
        """
        self._at("load")
        path = self._fetched(folder) if is_uri(folder) else Path(folder)
        saved, _ = read_record(path)
        for model, place in self._places(path):
            model.load(place)
        if saved.ranks == self.ranks:
            load_random_state(path, self.rank)
        if is_uri(folder):
            torch.distributed.barrier()  # other ranks of this host may still read the copy
            drop(path)

    def _fetched(self, uri: str) -> Path:
        """A copy of a checkpoint with what this rank reads of it: all shards only where they are laid out anew."""
        path = fetch(uri, is_record)
        same = all(read_record(place)[0] == model.layout for model, place in self._places(path))
        return fetch(uri, lambda name: not same or rank_of(name) in (None, self.rank))

    def digests(self, folder: str) -> dict[str, str]:
        """Path inside a folder → digest, of this rank's share of its files."""
        return file_digests(Path(folder), self.rank, self.ranks)

    def export(self, folder: str, tokenizer_from: str) -> list[StoredFile]:
        """A Hugging Face folder: weights, config, generation config, and the tokenizer of `tokenizer_from`; with
        adapters, the weights are the merged ones, and the adapter is in `adapter/`. Returns what this rank put in a storage."""
        model = self.model
        with written(folder) as (path, files), storing(path):
            check_room(path, model.num_parameters * model.dtype.itemsize, self.ranks, self.device)
            export_model(
                model.module.model,
                path,
                local_folder(tokenizer_from) if self.rank == 0 else tokenizer_from,
                rank=self.rank,
                sharded=model.sharded,
                bucket_bytes=model.spec.bucket_bytes,
                trust_remote_code=model.spec.trust_remote_code,
            )
        return files

    def close(self) -> None:
        """Free the shared memory of publishes."""
        if self._publisher is not None:
            self._publisher.close()

    def _at(self, point: str, part: str = "") -> None:
        """A named point of a verb (rollout/faults.py); `part`: what is noted of it."""
        if part:
            self.progress.at(part)
        reach(f"rank.{point}", who=f"learner-{self.rank}")

    def _drop_models(self) -> None:
        """Let go of the models of the stage before, so that the next are not loaded beside them.

        DeepSpeed's engines refer to themselves, and Python would collect them some time later. What ZeRO 2 and 3 hold stays
        until the process ends, which is why their stages have ranks of their own (orchestrator/cluster/services.py).
        """
        if not self.models:
            return
        while self.models:
            self.models.popitem()[1].close()
        # Twice: the first collection runs finalizers, of the engine and of its tensors, which bring back what they refer to.
        gc.collect()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _open(self, spec: LearnerSpec) -> None:
        spec = replace(spec, model_path=local_folder(spec.model_path), reference_path=local_folder(spec.reference_path))
        assert spec.head not in self.models, f"two models with a {spec.head} head"
        size = spec.sequence_parallel
        if size not in self._sequence_groups:
            self._sequence_groups[size] = SequenceGroup(self.rank, self.ranks, size)
        group = self._sequence_groups[size]
        self.models[spec.head] = TrainedModel(spec, rank=self.rank, ranks=self.ranks, device=self.device, group=group)

    def _places(self, folder: Path) -> Iterator[tuple[TrainedModel, Path]]:
        """Every model and its folder in a checkpoint."""
        for head, model in self.models.items():
            yield model, folder if model is self.model else folder / head

    def _trained_by(self, goal: Objective, name: ObjectiveName) -> TrainedModel:
        model = self.models.get(goal.head)
        if model is None:
            raise InputError(f"{name} trains a model with a {goal.head} head, and none was opened")
        if goal.reads_reference(model.spec) and model.reference is None:
            raise InputError(
                f"{name} compares the policy with a frozen reference, and none was opened (reference_path)"
            )
        return model

    def _own(self, batch: TrainingBatch) -> Iterator[tuple[Pack, PackTensors, bool]]:
        """This rank's packs, and whether it is the one to answer for their sequences.

        A forward pass is a collective under ZeRO-3, so the empty packs of a rank without work too.
        """
        for number, mini in enumerate(batch.packs, 1):
            share = self.model.share_of(mini)
            for i, pack in enumerate(share, 1):
                self.progress.at(f"mini-batch {number} of {len(batch.packs)}, forward pass {i} of {len(share)}")
                yield pack, self.model.tensors(pack), self.model.answers and bool(pack.weights.any())


def start_cuda(rank: int) -> None:
    """Raises ServiceError unless this process has a GPU: a rank that was given one never computes on the host in its place."""
    try:
        torch.cuda.init()
        torch.cuda.set_device(0)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise ServiceError(
            f"learner rank {rank}: CUDA does not come up ({reason}); torch {torch.__version__} is built for CUDA "
            f"{torch.version.cuda}: `rayzero doctor` on that host says what is missing"
        ) from problem


def _numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """Numbers read from the device in one go."""
    return dict(zip(values, torch.stack([value.detach().double() for value in values.values()]).tolist(), strict=True))
