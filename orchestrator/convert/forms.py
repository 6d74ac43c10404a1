"""Which form a file has, and its settings: a YAML, or a script with one command of a trainer in it."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.convert import openrlhf, trl, verl
from orchestrator.convert.beside import find_beside, text_of
from orchestrator.convert.draft import Draft
from orchestrator.convert.settings import UNKNOWN, Setting, short, shown
from orchestrator.convert.shell import Command, Script, Word
from orchestrator.convert.yaml_file import FORMS, plain_value, read_yaml
from rollout.errors import InputError

_PROGRAM = re.compile(r"^(?:\S*/)?(?P<module>(?:openrlhf|verl|recipe|trl|open_r1)[./][\w./]+?|train_ppo_ray)(?:\.py)?$")
_VERL = re.compile(r"(verl\.trainer\.main_ppo|(verl\.)?(experimental|recipe)\.[\w.]*main_?\w*|recipe\.[\w.]*main_\w+)$")
_OF_VERL = re.compile(r"\+{0,2}(actor_rollout_ref|algorithm|data|trainer)\.[\w.]+=")
_INSIDE = re.compile(r"openrlhf[./]cli|verl[./]trainer|trl\s+grpo")
_TRL = ("trl.scripts.grpo", "open_r1.grpo", "trl.examples.scripts.grpo")
_PROCESSES = ("num_gpus", "nproc_per_node", "num_processes")
"""Flags of launchers that say how many processes train."""
_LARGEST_BYTES = 1_000_000
_ENOUGH = 3
"""Settings by which a command is known for one of a trainer, whatever program it starts."""
_DEEPEST = 3
"""Commands inside of the words of commands (`bash -c "…"`)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A command of a trainer in a script."""

    trainer: str
    line: int
    before: tuple[Word, ...]
    """Words of what starts it, such as `accelerate launch --num_processes 8`."""
    words: tuple[Word, ...]
    """Its arguments."""


def convert_text(
    file: str, text: str, *, version: tuple[int, ...] | None = None, rows: int = 0, processes: int = 0
) -> Draft:
    """The recipe of a file's text.

    Args:
        file: its name, for messages and for files beside it.
        text: of it.
        version: of the trainer whose defaults hold; None: the newest that is known here.
        rows: of the training data; 0: counted where they are on this machine.
        processes: GPUs that train; 0: as the file says.

    Raises:
        InputError: a form that is not read, or a mistake in a setting.
    """
    if len(text) > _LARGEST_BYTES:
        raise InputError(f"{file}: {len(text):,} signs are no settings; {FORMS}")
    if UNKNOWN in text:
        raise InputError(f"{file}: signs that no text has; {FORMS}")
    if not text.strip():
        raise InputError(f"{file}: empty; {FORMS}")
    script, fault = _commands(file, text)
    if script:
        return _of_command(file, script, version, rows, processes)
    try:
        found = read_yaml(file, text)
    except InputError:
        if _INSIDE.search(text) and fault:
            raise fault from None
        raise
    names = set(found)
    if verl.is_verl(names):
        return verl.convert(file, found, rows=rows, processes=processes)
    if foreign := trl.foreign(names):
        line = found[foreign].line
        raise InputError(
            f"{file}, line {line}: {foreign} is no setting of TRL's GRPO but of another of its trainers; {FORMS}"
        )
    if trl.is_trl(names):
        return trl.convert(file, found, version=version, rows=rows, processes=processes)
    raise InputError(f"{file}: a YAML with {_some(found)}: of none of the trainers that are read; {FORMS}")


def _some(found: Mapping[str, Setting]) -> str:
    return ", ".join(list(found)[:3]) or "no settings"


def _commands(file: str, text: str) -> tuple[Found | None, InputError | None]:
    """The one command of a trainer in a script, if there is any, or why the text is no script."""
    try:
        script = Script(file, text, {name: value for name, value in os.environ.items() if UNKNOWN not in value})
        found = list(_trainers(file, script, 0))
    except InputError as error:
        return None, error
    if len(found) > 1:
        lines = ", ".join(str(each.line) for each in found)
        raise InputError(f"{file}: lines {lines} start a training each; keep one of them in the file")
    return (found[0] if found else None), None


def _trainers(file: str, script: Script, depth: int) -> Iterator[Found]:
    last = False
    for command in script.commands:
        if last and command.after_comment and re.match(r"(--|\+{0,2}\w+\.[\w.]+=)", command.words[0].text):
            name = command.words[0].text.split("=")[0]
            raise InputError(
                f"{file}, line {command.words[0].line}: {name} stands behind a comment, which ends the command for a shell; move the "
                "comment out of it"
            )
        if last := bool(found := _trainer(file, command)):
            assert found is not None
            if blank := next((word for word in found.words if word.text[:1].isspace()), None):
                raise InputError(
                    f"{file}, line {blank.line}: a blank behind the \\ ends the command for a shell; remove it, and what follows "
                    "it on the line"
                )
            yield found
            continue
        for word in command.words:
            if (
                depth < _DEEPEST
                and re.search(r"\s", word.text)
                and _INSIDE.search(word.text)
                and command.words[0].text not in ("echo", "printf")
            ):
                inner = Script(file, word.text, {}, line=word.line)
                yield from _trainers(file, inner, depth + 1)


def _trainer(file: str, command: Command) -> Found | None:
    """What a command starts, if it is a trainer. Raises InputError for a part of one that is not read."""
    if command.words[0].text in ("echo", "printf", "cd", "ls", "cat", "pip", "git"):
        return None
    for place, word in enumerate(command.words):
        rest, before = tuple(command.words[place + 1 :]), tuple(command.words[:place])
        if word.text == "grpo" and place and command.words[place - 1].text.rsplit("/", 1)[-1] == "trl":
            return Found(trl.TRAINER, word.line, before, rest)
        if not (match := _PROGRAM.match(word.text)):
            continue
        module = match["module"].replace("/", ".").removesuffix(".py")
        if module.endswith("train_ppo_ray"):
            return Found(openrlhf.TRAINER, word.line, before, rest)
        if _VERL.search(module):
            return Found(verl.TRAINER, word.line, before, rest)
        if module.endswith(_TRL):
            return Found(trl.TRAINER, word.line, before, rest)
        if re.fullmatch(r"(openrlhf\.cli|verl\.trainer|trl\.scripts)\.\w+", module):
            raise InputError(f"{file}, line {word.line}: {module} is not read; {FORMS}")
    return _by_settings(command)


def _by_settings(command: Command) -> Found | None:
    """A trainer that is known by the settings that a program of the user's is given."""
    words = command.words
    of_verl = [place for place, word in enumerate(words) if _OF_VERL.match(word.text)]
    if len(of_verl) >= _ENOUGH:
        first = of_verl[0]
        return Found(verl.TRAINER, words[first].line, tuple(words[:first]), tuple(words[first:]))
    program = next((place for place, word in enumerate(words) if word.text.endswith(".py")), None)
    if program is None:
        return None
    names = {word.text[2:].partition("=")[0] for word in words[program:] if word.text.startswith("--")}
    of_yaml = "grpo" in words[program].text and "config" in names
    if of_yaml or (trl.is_trl(names) and len(names & trl.NAMES) >= _ENOUGH):
        return Found(trl.TRAINER, words[program].line, tuple(words[:program]), tuple(words[program + 1 :]))
    return None


def _of_command(file: str, found: Found, version: tuple[int, ...] | None, rows: int, processes: int) -> Draft:
    if found.trainer == openrlhf.TRAINER:
        return openrlhf.convert(file, _flags(file, found.words), rows=rows, processes=processes)
    if found.trainer == verl.TRAINER:
        return verl.convert(file, _overrides(file, found.words), rows=rows, processes=processes)
    settings = _flags(file, found.words, typed=True)
    start = _flags(file, found.before, typed=True, strict=False)
    below: dict[str, Setting] = {}
    if launcher := start.get("config_file"):
        path = find_beside(Path(file).parent, [str(launcher.value)])
        below |= read_yaml(str(path), text_of(path)) if path else {"config_file": launcher}
    if named := settings.pop("config", None):
        below |= read_yaml(*_beside(file, named))
    for name in _PROCESSES:
        if name in start:
            below["num_processes"] = start[name]
    return trl.convert(file, {**below, **settings}, version=version, rows=rows, processes=processes)


def _beside(file: str, named: Setting) -> tuple[str, str]:
    """(name, text) of a file that a command names, beside the script or where rayzero was started."""
    if path := find_beside(Path(file).parent, [str(named.value)]):
        return str(path), text_of(path)
    raise InputError(
        f"{file}, line {named.line}: {named.shown()}: no file that can be read, beside {file} or here; give it"
    )


def _flags(file: str, words: tuple[Word, ...], *, typed: bool = False, strict: bool = True) -> dict[str, Setting]:
    """`--name value …` and `--name=value`: the last of a name counts, as for argparse.

    Args:
        typed: whether values are read as in YAML.
        strict: whether a value without a name is a mistake.
    """
    found: dict[str, Setting] = {}
    name, line, values = "", 0, [""][:0]

    def close() -> None:
        if name:
            read = [plain_value(value) if typed and UNKNOWN not in value else value for value in values]
            found[name] = Setting(name, read if len(read) > 1 else read[0] if read else "true", line)

    for word in words:
        if word.text.startswith("--") and len(word.text) > 2:
            close()
            name, equals, value = word.text[2:].partition("=")
            name, line, values = (name if "." in name else name.replace("-", "_")), word.line, [value] if equals else []
        elif name:
            values.append(word.text)
        elif strict:
            raise InputError(
                f"{file}, line {word.line}: {short(shown('', word.text))!r} has no --name before it; write --name value"
            )
    close()
    return found


def _overrides(file: str, words: tuple[Word, ...]) -> dict[str, Setting]:
    """`name=value`, `+name=value`, `~name` of hydra, over the YAML that `--config-name` names where it is here."""
    found: dict[str, Setting] = {}
    config = {"path": "", "name": ""}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if option := re.fullmatch(r"--config-(path|name|dir)(?:=(.*))?|-(cp|cn|cd)", word.text):
            kind = {"cp": "path", "cn": "name", "cd": "path", "dir": "path"}.get(option[1] or option[3], option[1])
            value = option[2] if option[2] is not None else (waiting.pop(0).text if waiting else "")
            config[kind] = value
            continue
        name, equals, value = word.text.partition("=")
        name = name.lstrip("+")
        if name.startswith("~"):
            found.pop(name[1:], None)
            continue
        if not equals or not re.fullmatch(r"[\w.@/-]+", name):
            raise InputError(f"{file}, line {word.line}: {short(shown('', word.text))!r} is no name=value; write it so")
        read = value if UNKNOWN in value or value.startswith("${") else plain_value(value)
        found[name] = Setting(name, read, word.line)
    below = _hydra_file(file, config["path"], config["name"], words) if config["name"] else {}
    return {**below, **found}


def _hydra_file(file: str, folder: str, name: str, words: tuple[Word, ...]) -> dict[str, Setting]:
    if name in ("ppo_trainer", "ppo_megatron_trainer"):
        return {}
    line = words[0].line
    if path := find_beside(Path(file).parent, [f"{folder or '.'}/{name}", f"{folder or '.'}/{name}.yaml"]):
        return read_yaml(str(path), text_of(path))
    asked = re.sub("\0([^\0]*)\0", r"$\1", f"{folder}/{name}".lstrip("/"))
    return {"--config-name": Setting("--config-name", asked, line)}
