"""Data sources, places and reward functions of a recipe, as all three trainers need them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.convert.beside import is_there
from orchestrator.convert.draft import Draft, quoted
from orchestrator.convert.settings import Settings, without_user
from rollout.data.rows import HUB

RUBRIC = "default"
HUB_SETS = {
    "openai/gsm8k": "gsm8k",
    "huggingfaceh4/math-500": "math500",
    "huggingfaceh4/aime_2024": "aime24",
    "ai-mo/aimo-validation-amc": "amc23",
    "ai-mo/numinamath-cot": "numinamath-cot",
    "ai-mo/numinamath-1.5": "numinamath",
    "agentica-org/deepscaler-preview-dataset": "deepscaler",
    "bytedtsinghua-sia/dapo-math-17k": "dapo-math",
    "codeparrot/apps": "apps",
    "baai/taco": "taco",
    "openai/openai_humaneval": "humaneval",
}
"""Hub id in small letters → set of ours with its columns."""
_FILE = re.compile(r"(?i)\.(jsonl?|ndjson|parquet|csv|arrow)(\.\w+)?$")
OWN_REWARD = "the reward functions are in the training script: name yours in rewards.rubrics.default (FILE.py:FUNCTION)"


def expanded(text: str) -> str:
    """A path with the user's folder in place of `~`."""
    return str(Path(text).expanduser()) if text.startswith("~") else text


def location(text: str) -> str:
    """A file, a folder or a hub id as `data.sources.NAME.path` takes it."""
    is_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text) and not _FILE.search(text) and not is_there(text)
    return HUB + text if is_hub else expanded(text)


def put_source(
    draft: Draft,
    table: str,
    written: str,
    source: str,
    columns: Mapping[str, Any],
    *,
    note: str = "",
    keep: bool = False,
) -> None:
    """A data source or an evaluation set.

    Args:
        table: `data.sources.NAME` or `eval.sets.NAME`.
        written: file or hub id of the setting; empty: not known.
        source: canonical name of the setting.
        columns: further keys; those of columns are left out where the set is published and known here.
        note: what differs.
        keep: whether the columns are kept in any case.
    """
    draft.put(f"{table}.path", location(written), source, note)
    known = HUB_SETS.get(written.lower())
    if known and not keep:
        draft.put(f"{table}.set", known, note="published columns")
    for key, value in columns.items():
        if value not in ("", None) or key == "answer_column":
            if known and not keep and key.endswith("_column"):
                continue
            draft.put(f"{table}.{key}", value)
    draft.put(f"{table}.rubric", RUBRIC)


def put_reward(draft: Draft, label: str, arguments: Mapping[str, Any], source: str, note: str = "") -> None:
    """A function of the rubric. `arguments`: `name`, `weight` and those of the function."""
    arguments = {key: value for key, value in arguments.items() if not (key == "weight" and value == 1)}
    value: Any = arguments
    if arguments.get("name") == label:
        value = {key: each for key, each in arguments.items() if key != "name"} or 1.0
    draft.put(f"rewards.rubrics.{RUBRIC}.{quoted(label)}", value, source, note)


def reward_of_file(path: str, function: str) -> dict[str, Any]:
    """A function in a Python file."""
    return {"name": f"{path}:{function}"}


def put_missing_rewards(draft: Draft, note: str = "") -> None:
    """A rubric that scores the final answer, where the file names no function that is here."""
    if not draft.has("rewards.rubrics."):
        draft.put(f"rewards.rubrics.{RUBRIC}.accuracy", 1.0, note=note or f"taken until you name yours: {OWN_REWARD}")
        if not note:
            draft.remains.append(OWN_REWARD)


def put_server(draft: Draft, url: str, source: str, label: str) -> None:
    """A reward server by its URL; a user and a password in it are not written."""
    plain = without_user(url)
    note = "user, password or key of the URL are not written out" if plain != url else ""
    put_reward(draft, label, {"name": plain}, source, note)


def put_places(
    draft: Draft, *, gpus: int, tensor_parallel: int, told: bool, shared: bool, engines: int, sources: Mapping[str, str]
) -> None:
    """Ranks, engines and whether they share GPUs.

    Args:
        gpus: of the trainer.
        tensor_parallel: GPUs of one engine.
        told: whether the file says so, and not the default.
        shared: whether engines and trainer are on the same GPUs.
        engines: number of engines where they are not.
        sources: key of the recipe → setting that it comes from.
    """
    note, ranks = "", gpus
    if shared and tensor_parallel > 1:
        if not told:
            note = (
                f"engines that share GPUs with ranks have one each, so the default of {tensor_parallel} is 1; for a model "
                "that does not fit on one, give engines GPUs of their own (rollout.share_gpus = false)"
            )
            tensor_parallel, engines = 1, gpus
        else:
            shared = False
            engines = max(1, gpus // 2 // tensor_parallel)
            ranks = gpus - engines * tensor_parallel if gpus // 2 >= tensor_parallel else gpus
            note = (
                f"engines of {tensor_parallel} GPUs share none with ranks here: {ranks} ranks and {engines} such engines on "
                f"{ranks + engines * tensor_parallel} GPUs; where the model fits on one GPU, tensor_parallel = 1, replicas = "
                f"{gpus}, learner.ranks = {gpus} and share_gpus = true take turns on {gpus}"
            )
    elif shared:
        engines = gpus
    draft.put("rollout.tensor_parallel", tensor_parallel, sources.get("tensor_parallel", ""), note)
    draft.put("rollout.replicas", engines, sources.get("replicas", ""))
    draft.put("rollout.share_gpus", shared, sources.get("shared", ""))
    draft.put("learner.ranks", ranks, sources.get("ranks", ""))


def put_sequence_parallel(draft: Draft, size: int, source: str) -> None:
    """Ranks that pass a sequence together. After the places."""
    ranks = draft.value("learner.ranks")
    if size > 1 and ranks % size == 0:
        draft.put("learner.sequence_parallel", size, source)
    elif size > 1:
        draft.differs(source, f"learner.sequence_parallel is a divisor of the {ranks} ranks: 1")


def put_lengths(draft: Draft, *, prompt: int, completion: int, sources: Mapping[str, str], note: str = "") -> None:
    """Longest prompt and completion, and what the engine takes."""
    draft.put("model.max_tokens", max(8, prompt + completion), note="prompt and completion")
    draft.put("data.max_prompt_tokens", prompt, sources.get("prompt", ""), note)
    draft.put("rollout.max_tokens", completion, sources.get("completion", ""))


def put_system(draft: Draft, name: str, text: str) -> None:
    """A system message."""
    draft.put("data.system", text, name)


def put_template_args(draft: Draft, settings: Settings, prefix: str) -> None:
    """Variables of the chat template. `prefix`: of their names, with its dot."""
    for name in settings.names():
        if name.startswith(prefix):
            draft.put(f"data.template_args.{quoted(name.removeprefix(prefix))}", settings.value(name), name)
