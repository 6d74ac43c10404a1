"""The HTML report of a run: its table, pipeline, curves, data, answers, times and samples in one file that opens anywhere.

Beside it the table alone, as Markdown to quote and as JSON for programs.

Everything comes from the plain files of the run directory: `recipe.toml`, `metrics.jsonl` and `trajectories/`. The
page loads nothing from outside, and its content security policy forbids it to. Text that a model wrote is hostile: the
templates escape it (render.py).
"""

import json
from pathlib import Path

from orchestrator.report.answers import answers_section
from orchestrator.report.evaluations import evaluations_section
from orchestrator.report.header import header
from orchestrator.report.overview import overview_section
from orchestrator.report.phases import time_section
from orchestrator.report.pipeline_graph import graph_section
from orchestrator.report.rejection import rejection_section
from orchestrator.report.render import Section, render
from orchestrator.report.samples import read_samples, samples_section
from orchestrator.report.stage_details import stages_section
from orchestrator.report.table import results_section
from orchestrator.results.table import Results, results_of
from orchestrator.results.table import as_json as results_as_json
from orchestrator.results.table_text import markdown
from orchestrator.run.files import write_file
from orchestrator.run.record import RunRecord, read_run
from orchestrator.run.state import read_state, standing

REFRESH_S = 20
"""Seconds after which the page of a run that goes on is loaded again."""
POINTS_A_SERIES = 200
"""A longer curve is thinned to this."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `table.md` and `table.json` into a run directory; returns the path of the first. The run may
    still be going on.

    Raises:
        InputError: the directory holds no run, or its recipe or metrics cannot be read.
    """
    run = read_run(run_dir)
    results = results_of(run)
    _write(run_dir / "table.md", markdown(results))
    _write(run_dir / "table.json", json.dumps(results_as_json(results), indent=1, allow_nan=False) + "\n")
    path = run_dir / "report.html"
    _write(path, _page(run, results))
    return path


def report_page(run_dir: Path) -> str:
    """The page alone, written nowhere. Raises InputError as `write_report` does."""
    run = read_run(run_dir)
    return _page(run, results_of(run))


def _write(path: Path, text: str) -> None:
    # JSON may hold half a surrogate pair, which UTF-8 cannot.
    write_file(path, text.encode("utf-8", "replace"))


def _page(run: RunRecord, results: Results) -> str:
    # The same recipe with more stages has more charts; the file stays small.
    limit = max(50, POINTS_A_SERIES * 3 // max(3, len(run.stages)))
    samples = read_samples(run)
    begun = [stage for stage in run.stages if stage.begun]
    sections = (
        results_section(results),
        graph_section(run, results),
        overview_section(begun, results),
        evaluations_section(begun),
        rejection_section(run),
        answers_section(results),
        time_section(run),
        stages_section(begun, limit),
        samples_section(samples),
        Section(anchor="recipe", title="Recipe", template="recipe.html.j2", content=run.recipe_text),
    )
    shown = [section for section in sections if section]
    state = read_state(run.directory)
    stands, _ = standing(run.directory, state, finished=run.finished, begun=bool(run.first_time))
    refresh = REFRESH_S if stands == "running" else 0
    return render(
        "page.html.j2",
        header=header(run, results, stands, str(state.get("reason", "")), refresh),
        refresh=refresh,
        sections=shown,
        samples=samples.stages,
    )
