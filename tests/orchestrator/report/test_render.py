"""The templates of the page: what they refuse, and that they are where the program is installed."""

import importlib.resources
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from orchestrator.report.render import render, source_hash
from orchestrator.report.samples import Samples

REPORT = Path(__file__).parents[3] / "orchestrator/report"
SOURCES = [path for path in REPORT.rglob("*") if path.suffix in (".py", ".j2")]


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="section"):
        render("recipe.html.j2")
    with pytest.raises(UndefinedError, match="content"):
        render("samples.html.j2", section=Samples(stages=[], unreadable=[]))


def test_what_a_template_is_given_is_escaped_and_written_out() -> None:
    section: dict[str, Any] = {"content": "<b>\u202e"}
    assert '<pre class="recipe" tabindex="0">&lt;b&gt;\\u202e</pre>' in render("recipe.html.j2", section=section)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_escaped_by_hand_and_nothing_is_declared_safe(path: Path) -> None:
    by_hand = r"html\.escape|import html\b|markupsafe\.escape|Markup\(|\|\s*(safe|e|escape|forceescape)\b|autoescape\s+(false|true)"
    assert not re.search(by_hand, path.read_text(encoding="utf-8"))


def test_no_module_writes_markup() -> None:
    for path in SOURCES:
        if path.suffix == ".py":
            assert not re.search(r"</\w|<\w+ \w+=", path.read_text(encoding="utf-8")), path


def test_style_and_script_are_on_the_page_as_they_are_and_pass_its_policy() -> None:
    header = {"name": "n", "lead": "", "facts": {}, "headline": ()}
    page = render("page.html.j2", header=header, refresh=0, sections=[], samples=[])
    for tag, name in (("style", "report.css"), ("script", "report.js")):
        own = (REPORT / "templates" / name).read_text(encoding="utf-8").removesuffix("\n")
        (found,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert found == own
        assert source_hash(own).replace("'", "&#39;") in page


def test_an_installed_program_has_every_file_of_the_page() -> None:
    files = sorted(path.name for path in (REPORT / "templates").iterdir())
    assert {"page.html.j2", "report.css", "report.js"} <= set(files)
    installed = importlib.resources.files("orchestrator.report") / "templates"
    assert sorted(path.name for path in installed.iterdir()) == files
    project = tomllib.loads((REPORT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["setuptools"]["package-data"]["orchestrator"]
    for name in files:
        assert any(fnmatch(f"report/templates/{name}", pattern) for pattern in shipped), name
    assert any(re.match(r"jinja2\b", name) for name in project["project"]["dependencies"])
