"""Checkpoints that another number of ranks, another ZeRO stage or another dtype can load.

A checkpoint is DeepSpeed's own: every rank writes its shard, and ranks of the same layout read them back through DeepSpeed.
For any other layout the shards are put together here, one parameter at a time, while they are loaded; nothing is
converted or written. DeepSpeed's universal form does not serve this: its converter and loaders (0.19.8) know no stage 0,
and what they write from stages 1 and 2 stage 3 cannot read, nor the other way round.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

TAG = "learner"
"""Folder of DeepSpeed's files inside a checkpoint."""
RECORD = "learner.json"
SHARD = re.compile(r"(?:random-|(?:bf16_)?zero_pp_rank_)(\d+)\D.*")
"""Names of files that each rank writes for itself."""
MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter beside its count of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a learner's state is laid out over processes."""

    ranks: int
    zero_stage: int
    dtype: str
    offload_optimizer: bool


def write_record(folder: Path, layout: Layout, optimizer_steps: int, engine: Any) -> None:
    """Write what `read_record` answers, and the versions of the packages that wrote the checkpoint. On rank 0."""
    packages = ("torch", "deepspeed", "transformers")
    record = {
        "layout": asdict(layout),
        "optimizer_steps": optimizer_steps,
        "trained": _trained_names(engine),
        "versions": {package: version(package) for package in packages},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1))


def read_record(folder: Path) -> tuple[Layout, int]:
    """Layout and optimizer steps of a checkpoint.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
    """
    record = _record(folder)
    return Layout(**record["layout"]), int(record["optimizer_steps"])


def is_record(name: str) -> bool:
    """Whether a file of a checkpoint, by its path, is what `read_record` reads: of the model, or of one beside it."""
    return name.rpartition("/")[2] == RECORD


def rank_of(name: str) -> int | None:
    """The one rank that reads a file of a checkpoint of its own layout; None: all do."""
    found = SHARD.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else None


def save_random_state(folder: Path, rank: int) -> None:
    """Write the state of the random generators of torch, numpy and Python in this process."""
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    torch.save(state, folder / f"random-{rank}.pt")


def load_random_state(folder: Path, rank: int) -> None:
    """Continue the generators where `save_random_state` left them.

    Raises:
        FileNotFoundError: the folder holds none of this rank.
    """
    state = torch.load(folder / f"random-{rank}.pt", weights_only=False)
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def file_digests(folder: Path, part: int, parts: int) -> dict[str, str]:
    """Path inside a folder → digest (BLAKE2b), of every `parts`-th of its files, from number `part` on."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {}
    for path in files[part::parts]:
        with path.open("rb") as file:
            found[str(path.relative_to(folder))] = hashlib.file_digest(file, "blake2b").hexdigest()
    return found


def load_other_layout(engine: Any, folder: Path) -> None:
    """Load weights and optimizer state of a checkpoint of another layout into a DeepSpeed engine.

    Every rank reads what it needs, a parameter at a time; collective under ZeRO-3.

    Raises:
        FileNotFoundError: the folder holds no checkpoint, or not one of this model.
    """
    saved = Shards(folder)
    parameters = {name: p for name, p in engine.module.named_parameters() if p.requires_grad}
    missing = parameters.keys() - saved.names
    if missing:
        raise FileNotFoundError(f"{folder} holds no parameter {min(missing)}: it is a checkpoint of another model")
    write = (_write_plain, _write_partitioned, _write_partitioned, _write_sharded)[engine.zero_optimization_stage()]
    write(engine, parameters, saved)


class _Fragment(NamedTuple):
    """A run of a parameter's elements inside a flat tensor of a shard."""

    shard: int
    group: int
    start: int
    size: int
    """Number of elements; −1: the whole tensor."""


class Shards:
    """The state of every trained parameter, whole, whatever ranks and ZeRO stage it was written with.

    Files are mapped, so only what is asked for is read.
    """

    def __init__(self, folder: Path) -> None:
        record = _record(folder)
        layout = Layout(**record["layout"])
        self.names: set[str] = set(record["trained"])
        files = folder / TAG
        if layout.zero_stage == 0:
            self._states = [_read(files / "mp_rank_00_model_states.pt")]
            self._flat = self._flat_0
            self._index = {name: [_Fragment(0, i, 0, -1)] for i, name in enumerate(record["trained"])}
            return
        prefix = "bf16_" if layout.dtype == "bfloat16" else ""
        self._states = [
            _read(files / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")["optimizer_state_dict"]
            for rank in range(layout.ranks)
        ]
        self._index = {name: [] for name in record["trained"]}
        if layout.zero_stage < 3:
            self._flat = self._flat_12
            pieces = self._pieces_12()
        else:
            self._flat = self._flat_3
            shapes = _read(files / "zero_pp_rank_0_mp_rank_00_model_states.pt")["param_shapes"]
            pieces = self._pieces_3(shapes)
        for name, fragment in pieces:
            self._index[name].append(fragment)

    @property
    def step(self) -> float:
        """Optimizer steps behind the moments; 0: there are none yet."""
        fragment = next(iter(self._index.values()))[0]
        step = self._flat(fragment, "step")
        return 0.0 if step is None else float(step)

    def tensor(self, name: str, part: str) -> Tensor:
        """[numel] float32 values of a parameter, flat. `part`: `weights`, or one of MOMENTS."""
        pieces = []
        for fragment in self._index[name]:
            flat = self._flat(fragment, part)
            if flat is None:
                continue
            flat = flat.detach().reshape(-1)
            pieces.append(flat if fragment.size < 0 else flat.narrow(0, fragment.start, fragment.size))
        return torch.cat(pieces).float()

    def _flat_0(self, fragment: _Fragment, part: str) -> Any:
        optimizer = self._states[0]["optimizer"]
        if part == "weights":
            return self._states[0]["module"][list(self._index)[fragment.group]]
        return optimizer["state"].get(fragment.group, {}).get(part)

    def _flat_12(self, fragment: _Fragment, part: str) -> Any:
        state = self._states[fragment.shard]
        if part == "weights":
            return state["single_partition_of_fp32_groups"][fragment.group]
        return state["base_optimizer_state"]["state"].get(fragment.group, {}).get(part)

    def _pieces_12(self) -> Iterator[tuple[str, _Fragment]]:
        """Fragments of stages 1 and 2: the ranks' partitions, one after the other, are the parameters laid end to end."""
        for shard, state in enumerate(self._states):
            for group, names in enumerate(state["param_slice_mappings"]):
                for name, piece in names.items():
                    yield name, _Fragment(shard, group, piece.start, piece.numel)

    def _flat_3(self, fragment: _Fragment, part: str) -> Any:
        state = self._states[fragment.shard]
        if part == "weights":
            return state["fp32_flat_groups"][fragment.group]
        return state["optimizer_state_dict"]["state"].get(fragment.group, {}).get(part)

    def _pieces_3(self, shapes: list[dict[str, torch.Size]]) -> Iterator[tuple[str, _Fragment]]:
        """Fragments of stage 3: every parameter is cut into as many equal parts as there are ranks; the last ones end in padding."""
        ranks = len(self._states)
        for shard in range(ranks):
            for group, names in enumerate(shapes):
                start = 0
                for name, shape in names.items():
                    share = -(-shape.numel() // ranks)
                    count = max(0, min(share, shape.numel() - shard * share))
                    yield name, _Fragment(shard, group, start, count)
                    start += share


def _write_plain(engine: Any, parameters: dict[str, nn.Parameter], saved: Shards) -> None:
    """Write into stage 0, which there is in float32 only: the optimizer holds the parameters themselves."""
    for name, parameter in parameters.items():
        parameter.data.copy_(saved.tensor(name, "weights").view(parameter.shape))
        for moment, values in _moments(engine.optimizer, parameter, saved.step):
            values.copy_(saved.tensor(name, moment).view(parameter.shape))


def _write_partitioned(engine: Any, parameters: dict[str, nn.Parameter], saved: Shards) -> None:
    """Write into stage 1 or 2: the optimizer holds this rank's partition of the flat float32 weights."""
    zero = engine.optimizer
    partitions = _partitions(zero)
    for partition in partitions:
        _moments(zero.optimizer, partition, saved.step)
    for name, parameter in parameters.items():
        weights = saved.tensor(name, "weights")
        parameter.data.copy_(weights.view(parameter.shape))
        mapping = parameter._hp_mapping
        if mapping is None:  # no element of it lies in this rank's partition
            continue
        source, target = mapping.lp_fragment_address, mapping.hp_fragment_address
        partition = partitions[mapping.param_group_index]
        state = zero.optimizer.state[partition]
        for whole, flat in (
            (weights, partition.data),
            *((saved.tensor(name, m), state[m]) for m in _moments_in(state)),
        ):
            flat.narrow(0, target.start, target.numel).copy_(whole.narrow(0, source.start, source.numel))


def optimized_weights(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 weights) of all that this rank's optimizer steps: parameters at stage 0, flat partitions of them else."""
    match engine.zero_optimization_stage():
        case 0:
            yield from ((name, p) for name, p in engine.module.named_parameters() if p.requires_grad)
        case 1 | 2:
            yield from ((str(i), flat) for i, flat in enumerate(_partitions(engine.optimizer)))
        case _:
            yield from ((str(i), flat) for i, flat in enumerate(engine.optimizer.fp32_partitioned_groups_flat))


def _partitions(zero: Any) -> Any:
    """This rank's flat float32 weights, under the name that the optimizer of DeepSpeed's has for them."""
    if hasattr(zero, "fp32_groups_flat_partition"):  # stage 1 in bfloat16
        return zero.fp32_groups_flat_partition
    return zero.single_partition_of_fp32_groups


def _write_sharded(engine: Any, parameters: dict[str, nn.Parameter], saved: Shards) -> None:
    """Write into stage 3: a part of every parameter is on each rank."""
    import deepspeed
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    zero = engine.optimizer
    for partition in zero.fp32_partitioned_groups_flat:
        _moments(zero.optimizer, partition, saved.step)
    rank = torch.distributed.get_rank()

    def share(whole: Tensor, parameter: Any) -> Tensor:
        size = parameter.partition_numel()
        mine = whole[rank * size : (rank + 1) * size]
        return torch.nn.functional.pad(mine, (0, size - len(mine)))

    for name, parameter in parameters.items():
        weights = saved.tensor(name, "weights")
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(weights.view(parameter.shape))
        safe_set_local_fp32_param(parameter, share(weights, parameter))
        for moment in MOMENTS if saved.step else ():
            safe_set_local_optimizer_state(parameter, share(saved.tensor(name, moment), parameter), moment)


def _moments(optimizer: torch.optim.Optimizer, weights: Tensor, step: float) -> list[tuple[str, Tensor]]:
    """(name, values) of AdamW's moments of these weights, made if need be; none before the first step."""
    if not step:
        optimizer.state.pop(weights, None)
        return []
    fused = bool(optimizer.param_groups[0].get("fused"))
    state = optimizer.state[weights]
    state["step"] = torch.tensor(step, device=weights.device if fused else "cpu")
    for moment in MOMENTS:
        state.setdefault(moment, torch.zeros_like(weights, requires_grad=False))
    return [(moment, state[moment]) for moment in MOMENTS]


def _moments_in(state: dict[str, Any]) -> list[str]:
    return [moment for moment in MOMENTS if moment in state]


def _trained_names(engine: Any) -> list[str]:
    """Names of the parameters that the optimizer holds; at stage 0 in its order, by which its state is numbered."""
    names = {id(parameter): name for name, parameter in engine.module.named_parameters() if parameter.requires_grad}
    if engine.zero_optimization_stage() > 0:
        return list(names.values())
    return [names[id(parameter)] for group in engine.optimizer.param_groups for parameter in group["params"]]


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no learner checkpoint")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _read(path: Path) -> Any:
    # A checkpoint holds objects of DeepSpeed's own, so it is unpickled in full, as DeepSpeed does: load only your own.
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False)
