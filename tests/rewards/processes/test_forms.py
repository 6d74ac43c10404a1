"""Reward functions in the forms of other trainers: which form is found, what they are given, and what counts as a number."""

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rewards.functions import OwnForm, UserFunction
from rewards.processes import forms
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import Rubric
from rewards.types import FunctionScore, FunctionSpec, Sample
from rollout.data.sources import field_text
from rollout.errors import ServiceError

FUNCTIONS = """
import functools
from decimal import Decimal
from fractions import Fraction
import helper_of_forms

# --- ours

def by_column(prompt, completion, reference, difficulty): return 1.0 if difficulty == 3 else 0.0
def third(prompt, completion, difficulty): return difficulty
def by_answer(prompt, completion, solution): return float(solution == "42")
def whole(prompt, completion, reference, row): return row["meta"]["level"] + (row["nothing"] is None)
def anything(prompt, completion, reference, **columns): return len(columns)
def by_name(completion, reference, difficulty=0): return len(completion) + difficulty
def two(completion, solution): return float(solution in completion)
def only_keywords(prompt, completion, reference, *, difficulty, scale=1): return difficulty * scale
def argument(prompt, completion, reference, difficulty): return difficulty
def few(text): return 1.0
def reference(prompt, completion, reference): return float(reference == "42")
def absent(prompt, completion, reference, colour): return 1.0
def rank(prompt, completions, reference, difficulty): return [difficulty * len(c) for c in completions]
def beside(prompt, completion, reference): return helper_of_forms.VALUE

# --- TRL's

def trl(completions, **kwargs): return [float(len(c)) for c in completions]
def trl_all(prompts, completions, solution, difficulty, **kwargs):
    assert prompts == ["6 * 7 = ?"] * len(completions) and solution == ["42"] * len(completions)
    return [d + len(c) for d, c in zip(difficulty, completions)]
def trl_bare(completions, solution): return [float(s in c) for c, s in zip(completions, solution)]
def trl_messages(completions, **kwargs): return [len(c[0]["content"]) for c in completions]
def _text(message): return message[-1]["content"]
def trl_helper(prompts, completions, **kwargs): return [len(_text(c)) + (p[0]["role"] == "user") for p, c in zip(prompts, completions)]
def trl_annotated(completions: list[list[dict[str, str]]], **kwargs) -> list[float]: return [float(len(c)) for c in completions]
def trl_text(completions: list[str], **kwargs): return [len(c) + len("content") for c in completions]
def trl_longest(completions, **kwargs): return [float(len(c) == max(map(len, completions))) for c in completions]
def trl_none(completions, **kwargs): return [None if c == "b" else 1.0 for c in completions]
def trl_nested(completions, meta, **kwargs): return [m["level"] for m in meta]
def trl_short(completions, **kwargs): return [1.0]
def trl_word(completions, **kwargs): return ["good" for c in completions]
async def trl_later(completions, **kwargs): return [2.0] * len(completions)
def trl_ids(completions, completion_ids, **kwargs): return [1.0] * len(completions)
class Scorer:
    def __call__(self, completions, **kwargs): return [3.0] * len(completions)
callable_object = Scorer()
partial = functools.partial(trl_bare)

def trl_word_content(completions, **kwargs): return [float("content" in c.split()) for c in completions]
def trl_get(completions, **kwargs): return [len(c[0].get("content", "")) for c in completions]
def trl_key(completions, **kwargs):
    key = "content"
    return [len(c[0][key]) for c in completions]
def trl_logs(completions, log_extra, log_metric, **kwargs):
    log_extra("texts", completions)
    log_metric("shared", 0.5)
    log_metric("words", "many")
    return [1.0 for _ in completions]
def trl_logs_kept(completions, **kwargs):
    kwargs["log_metric"]("shared", 0.25)
    return [1.0 for _ in completions]
def trl_only_ids(completion_ids, **kwargs): return [1.0 for _ in completion_ids]
def trl_roles(prompts, completions, **kwargs): return [len(p) + (p[0]["content"] == "Be brief.") for p in prompts]
def two_texts(prompt, response): return 1.0
class Reader:
    def __init__(self, factor=1.0): self.factor = factor
    def text(self, completion): return completion[-1]["content"]
    def __call__(self, prompts, completions, **kwargs): return [self.factor * len(self.text(c)) for c in completions]
reader = Reader(2.0)
wide = functools.partial(trl_messages, width=3)
@functools.wraps(trl_messages)
def wrapped(*args, **kwargs): return trl_messages(*args, **kwargs)
def raises(completions, **kwargs): raise ValueError("no")

# --- verl's

def verl(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "openai/gsm8k" and extra_info == {"index": 7}
    return {"score": float(solution_str == ground_truth), "acc": True, "pred": solution_str}
def verl_two(solution_str, ground_truth, method="strict"): return 1 if solution_str == ground_truth else 0
def verl_more(data_source, solution_str, ground_truth, extra_info=None, **kwargs): return sorted(kwargs) == ["bonus"]
def verl_batch(data_sources, solution_strs, ground_truths, extra_infos):
    return [{"score": len(s), "sources": len(data_sources)} for s in solution_strs]

# --- OpenRLHF's

def openrlhf(queries, prompts, labels): return [float(q == p + l) for q, p, l in zip(queries, prompts, labels)]
def openrlhf_table(queries, prompts, labels, **kwargs):
    return {"rewards": [0.5] * len(queries), "scores": [1] * len(queries), "extra_logs": {"length": [len(queries[0])]}}
def openrlhf_none(queries, prompts, labels): return {"scores": [1]}

# --- scorers

class Exact:
    def compute(self, *, predictions=None, references=None, ignore_case=False):
        if ignore_case: predictions, references = [p.lower() for p in predictions], [r.lower() for r in references]
        return {"exact_match": sum(p == r for p, r in zip(predictions, references)) / len(predictions)}
exact = Exact()
class Overlaps:
    def compute(self, **kwargs): return {"overlap1": 0.25, "overlapL": 0.75, "words": ["a"]}
overlaps = Overlaps()
def compute(predictions, references): return {"f1": [0.5]}
def each(predictions, references): return [0.25 for _ in predictions]

# --- nobody's

def unknown(**kwargs): return 1.0
"""

ROW = {
    "problem": "6 * 7 = ?",
    "solution": "42",
    "difficulty": 3,
    "reference": "a book",
    "meta": {"level": 2, "tags": ["a"]},
    "nothing": None,
    "data_source": "openai/gsm8k",
    "extra_info": {"index": 7},
    "reward_model": {"ground_truth": "42", "style": "rule"},
}


def sample(text: str = "42", row: Mapping[str, Any] = ROW, **changes: Any) -> Sample:
    fields = {name: field_text(value) for name, value in row.items() if name not in ("problem", "solution")}
    values = {
        "prompt": "User: 6 * 7 = ?\n",
        "question": "6 * 7 = ?",
        "completion": text,
        "answer": "42",
        "fields": fields,
        "columns": ("problem", "solution"),
    }
    return Sample(**(values | changes))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def resources(loop: asyncio.AbstractEventLoop) -> Iterator[Resources]:
    resources = Resources(ResourceSettings(function_timeout_s=20.0))
    yield resources
    loop.run_until_complete(resources.close())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forms") / "mine.py"
    path.write_text(FUNCTIONS)
    path.with_name("helper_of_forms.py").write_text("VALUE = 0.25\n")
    return path


@pytest.fixture
def own(loop: asyncio.AbstractEventLoop, resources: Resources, file: Path) -> Any:
    """(function, completions, settings) → (form, scores)."""

    def run(name: str, *texts: str, **settings: Any) -> tuple[str, list[FunctionScore]]:
        function = UserFunction(FunctionSpec(name=f"{file}:{name}", label="f", **settings), resources)

        async def ask() -> tuple[str, list[FunctionScore]]:
            form = await function.form()
            scores = await function.score_all([sample(text) for text in texts or ("42",)])
            return form.name if isinstance(form, OwnForm) else "", scores

        return loop.run_until_complete(ask())

    return run


@pytest.mark.parametrize(
    ("name", "settings", "form", "values"),
    [
        ("by_column", {}, "plain", [1]),
        ("third", {}, "plain", [3]),
        ("by_answer", {}, "plain", [1]),
        ("whole", {}, "plain", [3]),
        ("by_name", {}, "plain", [5]),
        ("two", {}, "plain", [1]),
        ("anything", {}, "plain", [len(ROW) - 1]),
        ("only_keywords", {"args": {"scale": 2}}, "plain", [6]),
        ("reference", {}, "plain", [1]),
        ("argument", {"args": {"difficulty": 9}}, "plain", [9]),
        ("beside", {}, "plain", [0.25]),
        ("trl", {}, "trl", [2]),
        ("trl_bare", {}, "trl", [1]),
        ("trl_all", {}, "trl", [5]),
        ("trl_messages", {}, "trl-messages", [2]),
        ("trl_helper", {}, "trl-messages", [3]),
        ("trl_annotated", {}, "trl-messages", [1]),
        ("trl_text", {}, "trl", [9]),
        ("trl_nested", {}, "trl", [2]),
        ("trl_later", {}, "trl", [2]),
        ("callable_object", {}, "trl", [3]),
        ("partial", {}, "trl", [1]),
        ("trl", {"form": "trl-messages"}, "trl-messages", [1]),
        ("trl_word_content", {}, "trl", [0]),
        ("trl_get", {}, "trl-messages", [2]),
        ("trl_key", {}, "trl-messages", [2]),
        ("Reader", {}, "trl-messages", [2]),
        ("reader", {}, "trl-messages", [4]),
        ("wide", {}, "trl-messages", [2]),
        ("wrapped", {}, "trl-messages", [2]),
        ("verl", {}, "verl", [1]),
        ("verl_two", {}, "verl", [1]),
        ("verl_more", {"args": {"bonus": 1}}, "verl", [1]),
        ("verl_batch", {}, "verl-batch", [2]),
        ("openrlhf", {}, "openrlhf", [1]),
        ("openrlhf_table", {}, "openrlhf", [0.5]),
        ("openrlhf_table", {"entry": "scores"}, "openrlhf", [1]),
        ("exact", {}, "evaluate", [1]),
        ("exact", {"args": {"ignore_case": True}}, "evaluate", [1]),
        ("Exact", {}, "evaluate", [1]),
        ("overlaps", {"entry": "overlapL"}, "evaluate", [0.75]),
        ("compute", {}, "evaluate", [0.5]),
        ("each", {}, "evaluate", [0.25]),
        ("unknown", {"form": "trl"}, "trl", None),
        ("unknown", {"form": "verl"}, "verl", [1]),
    ],
)
def test_a_function_runs_in_the_form_that_it_has(
    own: Any, name: str, settings: dict[str, Any], form: str, values: list[float] | None
) -> None:
    found, scores = own(name, **settings)
    assert found == form
    if values is None:
        assert "it must be a list of 1 numbers" in scores[0].error
    else:
        assert [(each.status, each.error, each.value) for each in scores] == [("ok", "", value) for value in values]


def test_a_table_of_another_trainer_has_figures_too(own: Any) -> None:
    (_, (verl,)), (_, (batch, _)), (_, (server,)) = own("verl"), own("verl_batch", "a", "bc"), own("openrlhf_table")
    assert verl.metrics == {"acc": 1.0}
    assert batch.metrics == {"sources": 2.0}
    assert server.metrics == {"scores": 1.0, "length": float(len("User: 6 * 7 = ?\n42"))}


def test_figures_that_a_function_of_trl_logs_are_figures(own: Any) -> None:
    (_, (named,)), (_, (kept, other)) = own("trl_logs"), own("trl_logs_kept", "a", "b")
    assert (named.value, named.metrics) == (1.0, {"shared": 0.5})
    assert [each.metrics for each in (kept, other)] == [{"shared": 0.25}] * 2


def test_messages_are_those_of_the_row(loop: asyncio.AbstractEventLoop, resources: Resources, file: Path) -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "6 * 7 = ?"}]
    function = UserFunction(FunctionSpec(name=f"{file}:trl_roles", label="r"), resources)
    with_column = sample(fields={"problem": field_text(said)})
    scores = [loop.run_until_complete(function.score(each)) for each in (with_column, sample())]
    assert [each.value for each in scores] == [3.0, 1.0]


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        (
            "absent",
            {},
            "needs 'colour': no argument in the recipe, and no column of the row (problem, solution, difficulty, ",
        ),
        ("trl_ids", {}, "needs 'completion_ids'"),
        ("trl_only_ids", {}, "needs 'completion_ids'"),
        ("two_texts", {}, "takes prompt, response, and not prompt, completion, reference and then columns"),
        ("trl_messages", {"form": "trl"}, "(called in the form 'trl'; `form` sets another)"),
        ("trl_short", {}, "returned [1.0]; it must be a list of 2 numbers"),
        ("trl_word", {}, "returned 'good', which is not a number"),
        ("openrlhf_none", {}, "without 'rewards'; it has: scores"),
        ("overlaps", {}, "it has: overlap1, overlapL, words; say which entry counts with `entry`"),
        ("overlaps", {"entry": "overlap2"}, "no 'overlap2'"),
        ("overlaps", {"entry": "words"}, "returned 'a', which is not a number"),
        ("unknown", {}, "set form to one of 'plain', 'trl', "),
        ("verl", {"group": True}, "scores one completion; leave out group = true"),
        ("by_column", {"args": {"colour": 1}}, "has no argument 'colour'"),
        ("exact", {"args": {"case": 1}}, "has no argument 'case'; it takes predictions, references, ignore_case"),
    ],
)
def test_what_cannot_be_called_or_is_no_number_is_an_error(
    own: Any, name: str, settings: dict[str, Any], error: str
) -> None:
    _, scores = own(name, "42", "43", **settings)
    assert {each.status for each in scores} == {"error"}
    assert error in scores[0].error


def test_an_error_names_a_line_of_the_function_and_none_of_ours(own: Any) -> None:
    (_, (missing,)), (_, (raised,)) = own("few"), own("raises")
    assert missing.error.startswith(
        "takes text, and not prompt, completion, reference and then columns: too many positional arguments; form sets another: "
    )
    assert raised.error.startswith("ValueError: no, at ")
    assert "mine.py:" in raised.error


# --- Groups


def test_a_relative_import_of_a_file_alone_says_that_there_is_no_package(
    loop: asyncio.AbstractEventLoop, resources: Resources, tmp_path: Path
) -> None:
    (tmp_path / "mine.v2.py").write_text("from .helper import f\n")
    function = UserFunction(FunctionSpec(name=f"{tmp_path / 'mine.v2.py'}:f", label="f"), resources)
    found = loop.run_until_complete(function.score(sample()))
    assert "ImportError: attempted relative import with no known parent package, at " in found.error


def in_a_group(name: str, file: Path, resources: Resources, **settings: Any) -> Rubric:
    return Rubric("r", [FunctionSpec(name=f"{file}:{name}", label="f", **settings)], resources)


@pytest.mark.parametrize(
    ("name", "settings", "values"),
    [
        ("trl_longest", {}, [{"f": 0.0}, {"f": 1.0}, {"f": 0.0}]),
        ("trl_none", {}, [{"f": 1.0}, {"f": 1.0}, {}]),
        ("verl_batch", {}, [{"f": 1.0}, {"f": 2.0}, {"f": 1.0}]),
        ("rank", {"group": True}, [{"f": 3.0}, {"f": 6.0}, {"f": 3.0}]),
        ("trl_longest", {"group": True}, [{"f": 0.0}, {"f": 1.0}, {"f": 0.0}]),
        ("openrlhf", {"group": True}, [{"f": 0.0}, {"f": 1.0}, {"f": 0.0}]),
        ("openrlhf", {}, [{}, {}, {}]),
        ("verl", {}, [{}, {}, {}]),
    ],
)
def test_functions_that_may_compare_see_the_group(
    loop: asyncio.AbstractEventLoop,
    resources: Resources,
    file: Path,
    name: str,
    settings: dict[str, Any],
    values: list[dict[str, float]],
) -> None:
    rubric = in_a_group(name, file, resources, **settings)
    samples = [sample("a"), sample("42"), sample("b")]
    assert [each.values for each in loop.run_until_complete(rubric.score_group(samples))] == values
    single = loop.run_until_complete(rubric.score(sample("a")))
    assert set(single.breakdown) == (set() if any(values) else {"f"})


def test_a_completion_without_a_group_is_scored_alone(
    loop: asyncio.AbstractEventLoop, resources: Resources, file: Path
) -> None:
    got = loop.run_until_complete(in_a_group("trl_longest", file, resources).score(sample("a", alone=True)))
    assert (got.status, got.value, got.breakdown) == ("ok", 1.0, {"f": 1.0})


def test_none_is_no_reward(loop: asyncio.AbstractEventLoop, resources: Resources, file: Path) -> None:
    rubric = in_a_group("trl_none", file, resources)
    got = loop.run_until_complete(rubric.score(sample("b", alone=True)))
    assert (got.status, got.error) == ("error", "no reward function of the rubric says anything of this completion")
    both = [FunctionSpec(name=f"{file}:trl_none", label="f"), FunctionSpec(name=f"{file}:by_column", label="g")]
    got = loop.run_until_complete(Rubric("r", both, resources).score(sample("b", alone=True)))
    assert (got.status, got.value, got.breakdown) == ("ok", 1.0, {"g": 1.0})


def test_a_group_function_that_fails_gives_no_reward(
    loop: asyncio.AbstractEventLoop, resources: Resources, file: Path
) -> None:
    with pytest.raises(ServiceError, match="f: returned 'good', which is not a number"):
        loop.run_until_complete(in_a_group("trl_word", file, resources).score_group([sample(), sample()]))


# --- Numbers


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("np.float32(0.5)", 0.5),
        ("np.float16(0.5)", 0.5),
        ("np.int64(3)", 3),
        ("np.bool_(True)", 1),
        ("np.array(0.5)", 0.5),
        ("Decimal('0.5')", 0.5),
        ("Fraction(1, 2)", 0.5),
        ("True", 1),
        ("10**30", 1e30),
        ("torch.tensor(0.5)", 0.5),
        ("torch.tensor(0.5, requires_grad=True)", 0.5),
        ("torch.tensor(1.5, dtype=torch.bfloat16)", 1.5),
        ("torch.tensor(True)", 1),
        ("{'value': np.float64(0.5), 'words': np.int64(3), 'note': 'text'}", 0.5),
        ("{'score': Decimal('0.5')}", 0.5),
        ("None", None),
        ("float('nan')", None),
        ("float('inf')", None),
        ("np.float32('nan')", None),
        ("np.array([0.5])", None),
        ("np.array([0.5, 1.0])", None),
        ("torch.tensor([0.5])", None),
        ("torch.tensor(float('-inf'))", None),
        ("[0.5]", None),
        ("'0.5'", None),
        ("b'1'", None),
        ("np.str_('1')", None),
        ("1j", None),
        ("np.complex64(1)", None),
        ("Decimal('NaN')", None),
        ("Decimal('sNaN')", None),
        ("10**400", None),
        ("object()", None),
        ("{'value': None}", None),
        ("{}", None),
        ("{'other': 1.0}", None),
    ],
)
def test_numbers_are_numbers_and_nothing_else_is(said: str, value: float | None) -> None:
    """In the test's own process, so that no child imports torch."""
    space: dict[str, Any] = {}
    library = "import torch\n" if "torch" in said else ""
    exec(
        f"import numpy as np\n{library}from decimal import Decimal\nfrom fractions import Fraction\n"
        f"def f(prompt, completion, reference): return {said}",
        space,
    )
    asked = {
        "prompt": "",
        "question": "",
        "reference": "",
        "completions": ["x"],
        "columns": {},
        "answer_column": "answer",
        "names": [],
    }
    told = forms.call(space["f"], "plain", False, "", {}, asked)
    if value is None:
        assert "returned " in told["problem"]
    else:
        assert told["scores"][0]["value"] == value
        assert type(told["scores"][0]["value"]) is float


def test_a_number_of_numpy_crosses_from_the_child(
    loop: asyncio.AbstractEventLoop, resources: Resources, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        inspect.cleandoc("""
        import numpy as np
        def nested(prompt, completion, reference): return {"value": np.float64(0.5), "words": np.int64(3)}
    """)
    )
    function = UserFunction(FunctionSpec(name=f"{path}:nested", label="f"), resources)
    got = loop.run_until_complete(function.score(sample()))
    assert (got.value, got.metrics) == (0.5, {"words": 3.0})
