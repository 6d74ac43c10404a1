"""The forms in which a reward function of the user's may be written, in the process that it runs in.

`describe` says which form a function has, by its signature, and which columns of the row it reads; `call` calls it so and
turns what it returned into plain numbers. Both get the function first: the pool calls it through them. The forms of other
trainers are those that their guides give: a function that runs there runs here.

What is no number is refused by name, as is a parameter that nothing is known for: neither becomes a reward.
"""

import dis
import functools
import inspect
import json
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import CodeType, FunctionType
from typing import Any, Literal, get_args

from rewards.processes.zygote import finished
from rollout.data.json_text import integer

Form = Literal["plain", "trl", "trl-messages", "verl", "verl-batch", "openrlhf", "evaluate"]
"""How a function is called. `plain`: ours; `trl-messages`: TRL's, whose completions are lists of messages."""
FORMS: tuple[str, ...] = get_args(Form)
WHOLE_GROUP = frozenset({"trl", "trl-messages", "verl-batch"})
"""Forms whose users expect the completions of a prompt in one call: a function may compare them."""
SINGLE = frozenset({"verl", "evaluate"})
"""Forms that score one completion a call, and no group."""
_VERL = ("data_source", "reward_model", "ground_truth", "extra_info")
_TABLE = {"verl": ("score", "value"), "verl-batch": ("score", "value"), "openrlhf": ("rewards",)}
"""Form → names of the entry that counts in a table, the first that is there; of other forms `value`, then `score`."""
_NEAR = 3
"""Instructions before a constant in which the function that is called with it stands."""
_LISTED = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}

Parameters = Mapping[str, inspect.Parameter]


class Refused(Exception):
    """A function that cannot be called with what is known, or what it returned is no number; in words for the user."""


class _Missing(Exception):
    """Parameters that nothing is known for, by name."""


def describe(function: Any, form: str, group: bool) -> dict[str, Any]:
    """`form`: that of the function, found by its signature unless given; `columns`: names that it may read, None for all.

    `problem` alone where it has no form that can be called.
    """
    try:
        target = _target(function)
        parameters = _parameters(target)
        form = form or _form_of(function, target, parameters, group)
        if group and form in SINGLE:
            raise Refused(f"is a function of the form {form!r}, which scores one completion; leave out group = true")
    except Refused as problem:
        return {"problem": str(problem)}
    takes_all = "row" in parameters or (form in ("plain", "trl", "trl-messages") and _takes_any(parameters))
    columns = [*parameters, *_VERL] if form.startswith("verl") else [*parameters]
    return {"form": form, "columns": None if takes_all else columns}


def call(
    function: Any, form: str, group: bool, entry: str, args: dict[str, Any], asked: dict[str, Any]
) -> dict[str, Any]:
    """`scores`: a table with `value` and `metrics` for each completion, None where the function says nothing of one.

    `asked` has the `prompt` as the model reads it, the `question` alone, the `reference`, the `completions`, `columns`:
    name → (text, whether it is JSON of something else), the name of the reference's as `answer_column`, and `names`, those
    of all columns; and `messages`, the prompt as the
    row has it where it is a list of messages. `problem` alone where a value is no number.
    """
    columns = {name: _column(*held) for name, held in asked["columns"].items()}
    target = _target(function)
    asked = asked | {"logged": {}}
    try:
        parameters = _parameters(target)
        if parameters and not _takes_any(parameters) and (spare := set(args) - set(parameters)):
            raise Refused(f"has no argument {min(spare)!r}; it takes {', '.join(parameters)}")
        positional, named = _ARGUMENTS[form](parameters, columns, args, asked, group)
        _check_call(target, form, positional, named)
        value = finished(target(*positional, **named))
        scores = _scores(value, form, group, entry, len(asked["completions"]))
        return {"scores": [each and each | {"metrics": asked["logged"] | each["metrics"]} for each in scores]}
    except _Missing as problem:
        names = ", ".join(map(repr, problem.args[0]))
        columns_there = f"{', '.join(asked['names']):.300}" or "none"
        return {"problem": f"needs {names}: no argument in the recipe, and no column of the row ({columns_there})"}
    except Refused as problem:
        return {"problem": str(problem)}


# --- Which form


_made: dict[type, Any] = {}
"""Class of a scorer, or of objects that are called → the one object of it."""


def _target(function: Any) -> Callable[..., Any]:
    """What is called: the `compute` of a scorer, an object of a class of such, or the function itself."""
    scorer = not isinstance(function, FunctionType) and callable(getattr(function, "compute", None))
    if isinstance(function, type) and (scorer or any("__call__" in vars(base) for base in function.__mro__)):
        if function not in _made:
            _made[function] = function()
        function = _made[function]
    target: Callable[..., Any] = function.compute if scorer else function
    return target


def _parameters(function: Callable[..., Any]) -> Parameters:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C, and says nothing
        return {}


def _check_call(function: Callable[..., Any], form: str, positional: list[Any], named: dict[str, Any]) -> None:
    """Raises Refused, which names the way out, where a function does not take what its form gives."""
    try:
        taken = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        taken.bind(*positional, **named)
    except TypeError as problem:
        gives = "prompt, completion, reference and then columns" if form == "plain" else f"what the form {form!r} gives"
        raise Refused(
            f"takes {', '.join(taken.parameters) or 'nothing'}, and not {gives}: {problem}; form sets another: {_choice()}"
        ) from None


def _takes_any(parameters: Parameters) -> bool:
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


def _form_of(function: Any, target: Callable[..., Any], parameters: Parameters, group: bool) -> str:
    names = set(parameters)
    scorer = target is not function and getattr(target, "__name__", "") == "compute"
    if scorer or {"predictions", "references"} <= names:
        return "evaluate"
    for name, form in (("solution_strs", "verl-batch"), ("solution_str", "verl"), ("queries", "openrlhf")):
        if name in names:
            return form
    # A function of ours for groups has `completions` too, and with them what these do not: one prompt, one reference.
    theirs = not group or "prompts" in names or _takes_any(parameters)
    brought = bool(names & {"completions", "completion_ids"}) or ("prompts" in names and _takes_any(parameters))
    if brought and theirs and not names & {"prompt", "reference"}:
        return "trl-messages" if _reads_messages(target, parameters.get("completions")) else "trl"
    if parameters and all(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        raise Refused(f"takes any argument, so its signature does not say its form; set form to one of {_choice()}")
    return "plain"


def _choice() -> str:
    return ", ".join(repr(form) for form in FORMS)


def _reads_messages(function: Any, completions: inspect.Parameter | None) -> bool:
    """Whether a function takes a completion for a list of messages, by its annotation or else since it reads `content`."""
    if completions is not None and completions.annotation is not completions.empty:
        said = str(completions.annotation).lower()
        if "dict" in said or "message" in said or "mapping" in said:
            return True
        if "str" in said:
            return False
    functions = [_function(function)]
    owner = vars(type(function)) if not isinstance(function, FunctionType) else {}
    for name in _names(functions[0]):
        functions.append(_function(owner.get(name) or getattr(functions[0], "__globals__", {}).get(name)))
    return any(map(_reads_content, functions))


def _function(given: Any) -> Any:
    """The function of Python's that a callable runs: of a partial, a decorated one, a method or an object; else None."""
    while isinstance(given, functools.partial):
        given = given.func
    given = inspect.unwrap(given) if callable(given) else None
    given = getattr(given, "__func__", given)
    if isinstance(given, FunctionType) or given is None:
        return given
    return next((vars(base)["__call__"] for base in type(given).__mro__ if "__call__" in vars(base)), None)


def _reads_content(function: Any) -> bool:
    """Whether a function takes the entry `content` of something: `m["content"]`, `m.get("content")`, `itemgetter("content")`.

    A text that is looked for (`"content" in reply`) is none.
    """
    for code in _codes(function):
        listed = list(dis.get_instructions(code))
        for place, each in enumerate(listed):
            if each.argval != "content" or not each.opname.startswith("LOAD_CONST"):
                continue
            behind = listed[place + 1] if place + 1 < len(listed) else each
            before = {str(other.argval) for other in listed[max(0, place - _NEAR) : place]}
            subscript = behind.opname.startswith("BINARY_SUBSCR") or behind.argrepr == "[]"
            if subscript or behind.opname.startswith("STORE") or before & {"get", "itemgetter"}:
                return True
    return False


def _codes(function: Any) -> Iterator[CodeType]:
    """The code of a function, and of those that stand in it."""
    waiting = [function.__code__] if isinstance(function, FunctionType) else []
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]


def _names(function: Any) -> set[str]:
    return {name for code in _codes(function) for name in code.co_names}


# --- With which arguments

Arguments = tuple[list[Any], dict[str, Any]]


def _plain(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    """Prompt, completion (or those of a group) and reference by position, the rest by name."""
    subject = "completions" if group else "completion"
    first = {
        "prompt": asked["prompt"],
        subject: asked["completions"] if group else asked["completions"][0],
        "reference": asked["reference"],
    }
    # The reference is text here, also under the name of its column.
    columns = {name: asked["reference"] if name == asked["answer_column"] else held for name, held in columns.items()}
    known = columns | {"row": columns} | args
    listed = [name for name, each in parameters.items() if each.kind in _LISTED]
    if subject in parameters and (listed[1:2] != [subject] or len(listed) < 3):
        return _by_name(parameters, known | first, known | first)
    if (
        listed[2:3] and listed[2] != "reference" and listed[2] in known
    ):  # a column that is named is meant, and not the reference
        first["reference"] = known[listed[2]]
    rest = {name: each for name, each in parameters.items() if name not in listed[:3]}
    spare = {name: value for name, value in known.items() if name not in listed[:3] and name not in first}
    positional, named = _by_name(rest, known, spare, args)
    return [*first.values(), *positional], named


def _trl(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    """Lists with one entry a completion, columns too."""
    return _trl_lists(parameters, columns, args, asked, messages=False)


def _trl_messages(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    """As `_trl`; prompts and completions are lists of messages."""
    return _trl_lists(parameters, columns, args, asked, messages=True)


def _trl_lists(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], *, messages: bool
) -> Arguments:
    count = len(asked["completions"])
    prompt: Any = asked["question"] or asked["prompt"]
    completions: list[Any] = asked["completions"]
    if messages:
        prompt = asked["messages"] or [{"role": "user", "content": prompt}]
        completions = [[{"role": "assistant", "content": text}] for text in completions]
    repeated = {
        name: [value] * count for name, value in columns.items() if name not in ("prompt", "completion", "completions")
    }
    logged: dict[str, float] = asked["logged"]
    known = repeated | {"prompts": [prompt] * count, "completions": completions} | args
    # Further figures; columns for a table of samples, which here says nothing of single completions, have no place.
    known |= {"log_metric": lambda name, value: logged.update(_figures({name: value})), "log_extra": lambda *_: None}
    return _by_name(parameters, {"row": columns} | known, known)


def _verl(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    known = _verl_known(columns, asked) | args
    return _by_name(parameters, columns | {"row": columns} | known, known)


def _verl_known(columns: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    model = columns.get("reward_model")
    truth = columns.get("ground_truth", asked["reference"])
    if isinstance(model, Mapping) and "ground_truth" in model:
        truth = model["ground_truth"]
    return {
        "data_source": columns.get("data_source", ""),
        "solution_str": asked["completions"][0],
        "ground_truth": truth,
        "extra_info": columns.get("extra_info") or {},
    }


def _verl_batch(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    count = len(asked["completions"])
    known = {f"{name}s": [value] * count for name, value in _verl_known(columns, asked).items()}
    known |= {"solution_strs": asked["completions"]} | args
    return _by_name(parameters, {"row": columns} | known, known)


def _openrlhf(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    count = len(asked["completions"])
    known = remote_request(asked["prompt"], asked["completions"], asked["reference"])
    known = {"queries": known["query"], "prompts": known["prompts"], "labels": known["labels"]} | args
    repeated = {name: [value] * count for name, value in columns.items()}
    return _by_name(parameters, repeated | {"row": columns} | known, known)


def _evaluate(
    parameters: Parameters, columns: dict[str, Any], args: dict[str, Any], asked: dict[str, Any], group: bool
) -> Arguments:
    known = {"predictions": asked["completions"], "references": [asked["reference"]]} | args
    return _by_name(parameters, known, known)


_ARGUMENTS: dict[str, Callable[..., Arguments]] = {
    "plain": _plain,
    "trl": _trl,
    "trl-messages": _trl_messages,
    "verl": _verl,
    "verl-batch": _verl_batch,
    "openrlhf": _openrlhf,
    "evaluate": _evaluate,
}


def _by_name(
    parameters: Parameters, known: Mapping[str, Any], spare: Mapping[str, Any], args: Mapping[str, Any] | None = None
) -> Arguments:
    """What a function takes of what is known; all of `spare` where it takes anything.

    Raises:
        _Missing: it needs what is not known.
    """
    positional: list[Any] = []
    named: dict[str, Any] = dict(args or {})
    missing: list[str] = []
    for name, each in parameters.items():
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            named = {other: value for other, value in spare.items() if other != "row"} | named
        elif each.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        elif name not in known:
            if each.default is each.empty:
                missing.append(name)
        elif each.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(known[name])
        else:
            named[name] = known[name]
    if missing:
        raise _Missing(missing)
    return positional, named


def remote_request(prompt: str, completions: Sequence[str], reference: str) -> dict[str, list[str]]:
    """Body of a request to OpenRLHF's reward server: `query` is a prompt with its completion behind it."""
    count = len(completions)
    return {
        "query": [prompt + text for text in completions],
        "prompts": [prompt] * count,
        "labels": [reference] * count,
    }


def _column(text: str, is_json: bool) -> Any:
    if not is_json:
        return text
    if not text:
        return None
    try:
        return json.loads(text, parse_int=integer)
    except ValueError:  # not a number, or infinite
        return text


# --- What it returned


def _scores(value: Any, form: str, group: bool, entry: str, count: int) -> list[dict[str, Any] | None]:
    if form == "openrlhf":
        return batch_scores(value, entry, count)
    if form in WHOLE_GROUP or group:
        said = _listed(value, count)
        return [None if each is None and form.startswith("trl") else _score(each, form, entry) for each in said]
    return [_score(value, form, entry)]


def batch_scores(value: Any, entry: str, count: int) -> list[dict[str, Any] | None]:
    """Scores in OpenRLHF's answer: a list, or a table with `rewards` (or `entry`) and `extra_logs`.

    Raises:
        Refused: it does not hold `count` numbers.
    """
    if not isinstance(value, Mapping):
        return [{"value": number(each), "metrics": {}} for each in _listed(value, count)]
    counts = entry or "rewards"
    if counts not in value:
        raise Refused(f"returned a table without {counts!r}; it has: {', '.join(map(str, value))}")
    logs = value.get("extra_logs")
    further = {
        **({"scores": value["scores"]} if "scores" in value else {}),
        **(logs if isinstance(logs, Mapping) else {}),
    }
    metrics: list[dict[str, float]] = [{} for _ in range(count)]
    for name, said in further.items():
        values = said.tolist() if hasattr(said, "tolist") else said
        if isinstance(values, list | tuple) and len(values) == count:
            for table, each in zip(metrics, values, strict=True):
                table |= _figures({name: each})
    values = _listed(value[counts], count)
    return [{"value": number(each), "metrics": table} for each, table in zip(values, metrics, strict=True)]


def _listed(value: Any, count: int) -> list[Any]:
    said = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(said, list | tuple) or len(said) != count:
        raise Refused(f"returned {_quote(value)}; it must be a list of {count} numbers")
    return list(said)


def _score(value: Any, form: str, entry: str) -> dict[str, Any]:
    if form == "evaluate" and isinstance(value, list) and len(value) == 1:
        value = value[0]  # a figure for each prediction
    if not isinstance(value, Mapping):
        return {"value": number(value), "metrics": {}}
    names = [entry] if entry else [name for name in _TABLE.get(form, ("value", "score")) if name in value]
    if form == "evaluate":  # a scorer that gives one figure for each prediction was given one
        value = {name: each[0] if isinstance(each, list) and len(each) == 1 else each for name, each in value.items()}
        if not names and len(figures := _figures(value)) == 1:
            names = [*figures]
    if not names or names[0] not in value:
        wanted = f"no {entry!r}" if entry else "nothing that is known to count"
        raise Refused(
            f"returned a table that has {wanted}; it has: {', '.join(map(str, value)) or 'nothing'}; "
            "say which entry counts with `entry`"
        )
    metrics = _figures({name: each for name, each in value.items() if name != names[0]})
    return {"value": number(value[names[0]]), "metrics": metrics}


def _figures(table: Mapping[Any, Any]) -> dict[str, float]:
    """The entries of a table that are numbers."""
    figures = {}
    for name, each in table.items():
        try:
            figures[str(name)] = number(each)
        except Refused:
            continue
    return figures


def number(value: Any) -> float:
    """A finite number, of whatever type: Python's, numpy's, Decimal, Fraction, a tensor without dimensions.

    Raises:
        Refused: it is none, such as None, text, an array, NaN or an infinity.
    """
    plain = value
    if not isinstance(value, numbers.Real | Decimal) and getattr(value, "shape", None) == () and hasattr(value, "item"):
        plain = value.item()
    if isinstance(plain, numbers.Real | Decimal):
        try:
            found = float(plain)
        except (ValueError, OverflowError):
            found = math.nan
        if math.isfinite(found):
            return found
    raise Refused(f"returned {_quote(value)}, which is not a number")


def _quote(value: Any) -> str:
    try:
        return f"{value!r:.200}"
    except Exception:  # noqa: BLE001  # a repr of the user's own
        return f"an object of {type(value).__name__}"
