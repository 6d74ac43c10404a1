"""A Hugging Face model folder read as the JSON and the safetensors headers that it is made of.

Imports neither torch nor transformers, so that a folder that lacks something is told in a second.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from rollout.errors import InputError

WEIGHT_FILES = ("*.safetensors", "*.bin")
TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
"""Each group is a tokenizer."""
FOLDERS = ("models", "model", "checkpoints", "checkpoint", "ckpt", "weights", "exports", "outputs", "output", "runs")
"""Names of folders that people keep models in; no owner on the hub is meant by them."""
EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "embeddings.weight",
)
"""Ends of the names that the weights of token embeddings have."""
ONLY_WHEN_SAMPLING = {
    "temperature": 1.0, "top_p": 1.0, "top_k": 50, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "min_p": None,
    "top_h": None,
}  # fmt: skip
"""Key of a generation config → the value that it may have without `do_sample`."""
ONLY_WITH_BEAMS = {"early_stopping": False, "length_penalty": 1.0}
"""Key of a generation config → the value that it may have without `num_beams`."""


def is_local(path: str) -> bool:
    """Whether the path of a model names a folder, there or not, rather than a model of the Hugging Face hub (`owner/name`)."""
    folder = Path(path)
    if folder.exists() or path.startswith((".", "~", "/")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        return True
    return folder.parent != Path() and (folder.parent.is_dir() or folder.parts[0].lower() in FOLDERS)


def read_config(folder: Path, named: str) -> dict[str, Any]:
    """`config.json`. Raises InputError, with `named` (how the user named the folder) in front."""
    file = folder / "config.json"
    if not file.is_file():
        inside = next((entry.parent.name for entry in sorted(folder.glob("*/config.json"))), "")
        hint = f"; did you mean {str(folder / inside)!r}?" if inside else "; give a Hugging Face model folder"
        raise InputError(f"{named}: folder has no config.json{hint}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{named}: config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{named}: config.json is not a JSON object; copy it from the base model")
    return config


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a model folder brings a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    return bool(read_json_file(folder / "tokenizer_config.json").get("chat_template"))


def chat_templates(folder: Path) -> str | dict[str, str]:
    """The chat template of the tokenizer in a folder, or its templates by name, as `transformers` takes them; empty: none."""
    texts = {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        texts["default"] = folder / "chat_template.jinja"
    held: Any = {name: file.read_text(encoding="utf-8") for name, file in texts.items()}
    held = held or read_json_file(folder / "tokenizer_config.json").get("chat_template") or ""
    if isinstance(held, list):
        held = {each["name"]: each["template"] for each in held}
    return held["default"] if isinstance(held, dict) and set(held) == {"default"} else held


def special_tokens(folder: Path) -> dict[str, str]:
    """Name → text of the special tokens that the tokenizer in a folder gives to its chat template."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for name, token in read_json_file(folder / file).items():
            text = token.get("content") if isinstance(token, dict) else token
            if name.endswith("_token") and isinstance(text, str):
                found[name] = text
    return found


def cached_folder(name: str) -> Path | None:
    """Folder of a model of the Hugging Face hub in the cache of this machine; None: it is not there."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{name.replace('/', '--')}"
    try:
        commit = (cache / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        commit = next((entry.name for entry in sorted((cache / "snapshots").glob("*"))), "")
    folder = cache / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def tokenizer_ids(folder: Path) -> int:
    """One more than the largest id that the tokenizer in a folder gives; 0 where its files are of a form that is not read here."""
    ids = [0]
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        held = read_json_file(folder / name)
        if name != "tokenizer.json":
            ids += [place for place in held.values() if isinstance(place, int)]
            continue
        model = held.get("model")
        vocabulary = model.get("vocab", {}) if isinstance(model, dict) else {}
        # Unigram models list their pieces, the others map them to ids.
        ids += [len(vocabulary) - 1] if isinstance(vocabulary, list) else list(vocabulary.values())
        ids += [
            int(token["id"]) for token in held.get("added_tokens") or () if isinstance(token, dict) and "id" in token
        ]
    ids += [int(place) for place in read_json_file(folder / "tokenizer_config.json").get("added_tokens_decoder", {})]
    largest = max(ids)
    return largest + 1 if largest > 0 else 0


def embedding_rows(folder: Path) -> int:
    """Rows of the token embedding, by the headers of the weights; 0 where they name none, as pickled weights do.

    Raises:
        InputError: a safetensors file is not whole.
    """
    return next((shape[0] for name, shape in tensor_shapes(folder).items() if name.endswith(EMBEDDINGS)), 0)


def token_ids_in(config: dict[str, Any]) -> dict[str, int]:
    """Key → the largest id under it, of the special tokens that a config or generation config names."""
    found = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        named = config.get(key)
        ids = [each for each in (named if isinstance(named, list) else [named]) if isinstance(each, int)]
        if ids:
            found[key] = max(ids)
    return found


def generation_faults(folder: Path) -> dict[str, Any]:
    """Keys of `generation_config.json` that `transformers` reads and does not write back as they are, with their values."""
    held = read_json_file(folder / "generation_config.json")
    sampling = {} if held.get("do_sample") is True else ONLY_WHEN_SAMPLING
    beams = {} if (held.get("num_beams") or 1) > 1 else ONLY_WITH_BEAMS
    faults = {
        key: held[key]
        for key, neutral in (sampling | beams).items()
        if held.get(key) is not None and held[key] != neutral
    }
    pad = held.get("pad_token_id")
    return faults | ({"pad_token_id": pad} if isinstance(pad, int) and pad < 0 else {})


def read_json_file(file: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def folder_parameters(folder: Path) -> int:
    """Number of parameters, by the headers of the weights or, for pickled weights, by their size.

    Raises:
        InputError: a safetensors file is not whole.
    """
    tensors = sorted(folder.glob("*.safetensors"))
    if tensors:
        return sum(_safetensors_parameters(file) for file in tensors)
    item = 4 if read_config(folder, str(folder)).get("torch_dtype") == "float32" else 2
    return sum(file.stat().st_size for file in folder.glob("*.bin")) // item


def check_whole(folder: Path, named: str) -> None:
    """Raises InputError, with `named` in front, when weights or tokenizer are missing, cut short or not downloaded."""
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


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Name → shape, by the headers of the weights; empty for pickled weights.

    Raises:
        InputError: a safetensors file is not whole.
    """
    return {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in _header(file).items()}


def _safetensors_parameters(file: Path) -> int:
    return sum(math.prod(shape) for shape in _header(file).values())


def _header(file: Path) -> dict[str, list[int]]:
    """Name → shape, from the header alone. A file that was cut short is found here too."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if stream.seek(0, os.SEEK_END) < 8 + size:
                raise ValueError("it ends before its header does")
            total = stream.tell()
            stream.seek(8)
            header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        if total < 8 + size + max((tensor["data_offsets"][1] for tensor in header.values()), default=0):
            raise ValueError("it is shorter than its header says")
        return {name: [int(length) for length in tensor["shape"]] for name, tensor in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({error}); copy or download it again") from None
