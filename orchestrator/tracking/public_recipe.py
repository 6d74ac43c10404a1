"""A recipe as others may see it: without the values of environment variables, passwords, keys and tokens."""

import re
from typing import Any

from orchestrator.config.load import to_toml
from orchestrator.config.recipe import Recipe

HIDDEN = "(not sent)"
_SECRET = re.compile(
    r"(?:^|[_.-])(?:secret|passw(?:or)?d|passphrase|credentials?|token|auth|authorization|(?:api|access|private)[_-]?key)s?$",
    re.I,
)
"""End of the name of a key whose text is kept back. `max_tokens` is a number and `api_key_env` names a variable: they are sent."""
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]*@")


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain data, with what may be secret kept back."""
    data = to_toml(recipe)
    data["cluster"]["env"] = dict.fromkeys(data["cluster"]["env"], HIDDEN)
    public: dict[str, Any] = _public("", data)
    return public


def without_passwords(text: str) -> str:
    """A text in which addresses (`https://name:password@host`) have lost name and password."""
    return _IN_ADDRESS.sub("", text)


def _public(name: str, value: Any, secret: bool = False) -> Any:
    """`secret`: whether a table or list that it is in is called as what is kept back."""
    secret = secret or bool(_SECRET.search(name))
    if isinstance(value, dict):
        return {key: _public(key, inner, secret) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(name, inner, secret) for inner in value]
    if isinstance(value, str):
        return HIDDEN if value and secret else without_passwords(value)
    return value
