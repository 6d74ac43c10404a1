"""Nothing that a model, a recipe or a file name says can act on the page, in whatever part of it the text stands.

A run is written twice, once with a hostile text in every place where a text can stand and once with a harmless word. The
two pages must have the same elements with the same attributes, and the hostile text must be readable in every part.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from orchestrator.report.escape import harmless
from orchestrator.report.page import write_report

HOSTILE = {
    "ends the script": "</script><img src=x onerror=alert(1)>",
    "ends the style": "</style><style>*{display:none}</style>",
    "ends a text": "</pre></textarea></title><svg/onload=alert(1)>",
    "ends an attribute": "\"><a href='javascript:alert(1)'>",
    "adds an attribute": "' onmouseover='alert(1)' x=\" onfocus=\"alert(1)",
    "begins a comment": "<!-- <script> ]]> --!>",
    "is escaped already": "&lt;script&gt;&#x3c;b&#x3e;&quot;",
    "turns text around": "a\u202egnp.exe\u202c \u2066b\u2069\u200f",
    "obeyed by terminals": "\x1b[2J\x07\x7f",
    "is a template": "{{ 7 * 7 }}{% include 'page.html.j2' %}{# no #}",
    "breaks a line of script": "\u2028\u2029'\\\"",
    "is no scheme": "javascript:alert(1)//",
}
SECTIONS = ("results", "pipeline", "curves", "data", "answers", "time", "stages", "samples", "recipe")


def stages(text: str) -> list[dict[str, Any]]:
    model = {"path": f"org/m{text.replace('/', '|')}"}
    rows = {"rows": {"stage": f"reject{text}"}}
    scored = {"rubrics": {"default": {"r": {"name": "reward_model", "path": f"stage:pairs{text}"}}}}
    return [
        {"name": f"sft{text}", "kind": "sft", "model": model},
        {"name": f"pairs{text}", "kind": "reward_model", "model": model},
        {
            "name": f"grpo{text}",
            "kind": "grpo",
            "data": {"sources": {"s": {"path": "p"}}},
            "rewards": scored,
            "model": model,
        },
        {"name": f"reject{text}", "kind": "reject", "model": model},
        {
            "name": f"taught{text}",
            "kind": "sft",
            "data": {"sources": rows},
            "model": {"path": "m2"},
            "model_from": "own",
        },
        {"name": f"odd{text}", "kind": f"kind{text}", "model": model},
    ]


def evaluations(text: str, stage: str) -> list[dict[str, Any]]:
    sample = {"id": text, "prompt": f"asked {text}", "answer": f"known {text}", "completion": f"said {text}"}
    compared = {**sample, "baseline": f"before {text}", "won": 1.0}
    common = {"kind": "eval", "stage": f"{stage}{text}", "step": 2, "label": "after", "problems": 8, "time": 20.0}
    figures = {"greedy": 0.5, "labels": {f"l{text}": 0.5}, "metrics": {f"m{text}": 1.0}, f"k{text}": 3.0}
    return [
        {**common, "set": f"set{text}", **figures, "samples": [{**sample, "correct": True}]},
        {**common, "set": f"other{text}", "win_rate": 0.5, "samples": [compared]},
    ]


def records(text: str) -> list[dict[str, Any]]:
    times = {"time/step_s": 2.0, "time/train_s": 1.0, "time/start_s": 1.0}
    held_out = {"set": f"held{text}", "pairs": 4, "accuracy": 0.5, "log_loss": 0.7}
    found: list[dict[str, Any]] = []
    for stage in ("sft", "pairs", "grpo", "taught", "odd"):
        figures = {
            "learner/loss": 1.0,
            "reward/mean": 0.5,
            f"reward/{text}": 0.1,
            f"held_out_loss/{text}": 2.0,
            **times,
        }
        found += [{"kind": "step", "stage": f"{stage}{text}", "step": n, "time": 10.0 + n, **figures} for n in (1, 2)]
        found += evaluations(text, stage)
    found.append(
        {"kind": "eval", "stage": f"pairs{text}", "step": 2, "label": f"after{text}", "time": 30.0, **held_out}
    )
    yields = {"samples": 9, "kept": 5, "wrong": 1, f"reason{text}": 3}
    found.append({"kind": "reject", "stage": f"reject{text}", "time": 40.0, "prompts": 3, "yields": yields})
    found.append({"kind": "stage", "stage": f"reject{text}", "event": "start", "time": 41.0})
    return found


def write_run(folder: Path, text: str) -> Path:
    folder.mkdir()
    recipe = {"name": f"run{text}", "description": f"about {text}", "seed": f"seed{text}", "stages": stages(text)}
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(text)))
    trajectories = folder / "trajectories" / f"grpo{text}"
    trajectories.mkdir(parents=True)
    texts = ("group_id", "prompt", "answer", "completion", "source", "finish_reason")
    rows = {name: [f"{name} {text}"] for name in texts} | {"reward": [1.0], "status": ["ok"]}
    parts = pa.array([[(f"part{text}", 1.0)]], pa.map_(pa.string(), pa.float64()))
    pq.write_table(pa.table({**rows, "reward_parts": parts}), trajectories / "step-000001.parquet")
    (trajectories / f"step-{text.replace('/', '|')}.parquet").write_bytes(b"nothing")
    return folder


class Parts(HTMLParser):
    """The elements of a page with the names of their attributes, and the text of each of its parts."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str]] = []
        self.texts: dict[str, str] = {}
        self._part = "head"
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [(name, value or "") for name, value in attrs]
        # Cards have headers, and segments of bars titles, of their own.
        first = tag in ("title", "header") and tag not in self.texts
        if first or tag in ("section", "style", "script"):
            self._part = str(dict(attrs).get("id", tag))

    def handle_data(self, data: str) -> None:
        self.texts[self._part] = self.texts.get(self._part, "") + data


def parts_of(run_dir: Path) -> Parts:
    return Parts(write_report(run_dir).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def harmless_page(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return parts_of(write_run(tmp_path_factory.mktemp("runs") / "run", "word"))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_text_is_shown_in_every_part_and_acts_in_none(
    tmp_path: Path, harmless_page: Parts, text: str
) -> None:
    page = parts_of(write_run(tmp_path / "run", text))
    assert page.elements == harmless_page.elements
    shown = harmless(text)
    for part in ("title", "header", *SECTIONS):
        assert shown in page.texts[part] or part == "recipe", part
    assert not [value for name, value in page.values if name == "href" and not value.startswith("#")]
    assert not [name for name, _ in page.values if name.startswith("on") or name == "style"]
    everything = "".join((*page.texts.values(), *(value for _, value in page.values)))
    assert everything == harmless(everything)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_script_gets_a_hostile_text_as_data(tmp_path: Path, text: str) -> None:
    page = parts_of(write_run(tmp_path / "run", text))
    (stage,) = json.loads(page.texts["samples-data"])
    (group,) = stage["steps"][0]["groups"] or stage["steps"][1]["groups"]
    shown = harmless(text)
    assert (stage["stage"], group["id"], group["prompt"]) == (f"grpo{shown}", f"group_id {shown}", f"prompt {shown}")
    assert group["completions"][0]["text"] == f"completion {shown}"
    assert group["completions"][0]["parts"] == [[f"part{shown}", 1.0]]
    charts = [json.loads(value) for name, value in page.values if name == "data-chart"]
    assert {shown, f"set{shown}"} <= {series["n"] for chart in charts for series in chart["s"]}


def test_every_part_of_the_page_was_looked_at(harmless_page: Parts) -> None:
    assert set(harmless_page.texts) == {"head", "title", "style", "header", *SECTIONS, "samples-data", "script"}


def test_the_script_of_the_page_never_makes_markup_from_text() -> None:
    script = (Path(__file__).parents[3] / "orchestrator/report/templates/report.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)
