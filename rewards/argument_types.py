"""Types of the arguments that a recipe gives to a reward function that ships."""

from collections.abc import Callable
from typing import Any, get_type_hints

from rewards.types import FunctionSpec
from rollout.errors import InputError


def check_types(spec: FunctionSpec, declared: Callable[..., Any]) -> None:
    """Raises InputError for an argument whose value is not of the type that a function, or a class of settings, declares."""
    # Only here: a rubric without arguments does not wait for it.
    from pydantic import TypeAdapter, ValidationError

    types = get_type_hints(declared)
    for name, value in spec.args.items():
        try:
            TypeAdapter(types[name]).validate_python(value, strict=True)
        except ValidationError as problem:
            reason = problem.errors()[0]["msg"].lower()
            raise InputError(f"reward function {spec.name!r}: {name} = {value!r:.80}: {reason}") from None
