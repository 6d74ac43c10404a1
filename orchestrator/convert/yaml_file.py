"""Reading a YAML file as dotted names with their lines. Only plain data is read: a tag that would make an object is refused."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from orchestrator.convert.settings import Setting
from rollout.errors import InputError

_LARGEST = 100_000
"""Values of a file with its aliases written out; a file of a few lines can have billions."""


class _Loader(yaml.SafeLoader):
    """Numbers as everybody writes them: `1e-6` is one, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(file: str, text: str) -> dict[str, Setting]:
    """Dotted name → setting of a table. A list is one value, and so is an empty table.

    Raises:
        InputError: it is no YAML, or no table, or a name is there twice.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError:
        raise InputError(f"{file}: signs that no text has; {FORMS}") from None
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{file}: no table of settings; {FORMS}")
        _count(node, [0], file)
        found: dict[str, Setting] = {}
        for setting in _flat(loader, node, "", file):
            if setting.name in found:
                first = found[setting.name].line
                raise InputError(
                    f"{file}, line {setting.line}: {setting.name} is there twice, first in line {first}; keep one"
                )
            found[setting.name] = setting
        return found
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{file}, line {line}: not valid YAML: {error.problem or error.context}; {FORMS}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error if isinstance(error, InputError) else InputError(f"{file}: not valid YAML; {FORMS}") from None
    finally:
        loader.dispose()


FORMS = (
    "read are: a TRL GRPOConfig YAML, a verl command (python3 -m verl.trainer.main_ppo …) or YAML, and an OpenRLHF command "
    "(python3 -m openrlhf.cli.train_ppo_ray …)"
)


def plain_value(text: str) -> Any:
    """The value of a text as YAML has it: a number, true, a list; the text itself where it is none."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if isinstance(value, dict | list) and text.lstrip()[:1] not in ("[", "{"):
        return text
    is_number = not isinstance(value, int | float) or isinstance(value, bool) or ":" not in text
    # `10:30` and `2026-11-27` are text.
    return value if is_number and isinstance(value, bool | int | float | str | list | dict | None) else text


def _count(node: Any, total: list[int], file: str) -> None:
    total[0] += 1
    if total[0] > _LARGEST:
        raise InputError(f"{file}: more than {_LARGEST:,} values; no settings of a trainer")
    for child in getattr(node, "value", ()) if not isinstance(node, yaml.ScalarNode) else ():
        for each in child if isinstance(child, tuple) else (child,):
            _count(each, total, file)


def _flat(loader: _Loader, node: yaml.MappingNode, prefix: str, file: str) -> Iterator[Setting]:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{file}, line {key.start_mark.line + 1}: a name that is a list or a table; {FORMS}")
        name = prefix + key.value
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _flat(loader, value, name + ".", file)
        else:
            yield Setting(name, loader.construct_object(value, deep=True), key.start_mark.line + 1)
