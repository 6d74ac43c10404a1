"""The templates of the page, which escape whatever they are given.

The modules of this folder compute plain values and write no markup; `templates/` lays the values out. Nothing there is
marked as safe but the templates' own text, so no text of a model can act on the page.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from orchestrator.report.escape import as_json, harmless, split_tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page with a link at its top."""

    anchor: str
    title: str
    """Word of the link."""
    template: str
    """The file in `templates/` that lays `content` out."""
    content: Any


def render(template: str, **values: object) -> str:
    """A template of the page, filled in.

    Raises:
        UndefinedError: the template names a value that it was not given.
    """
    return _ENVIRONMENT.get_template(template).render(values)


def source_hash(source: str) -> str:
    """The source expression that lets exactly this inline style or script pass the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        finalize=harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"tojson": as_json, "split_tags": split_tags, "source_hash": source_hash}
    return environment


_ENVIRONMENT = _environment()
