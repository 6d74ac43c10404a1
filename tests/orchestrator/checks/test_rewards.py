"""Whether the rewards of a rubric exist, take their arguments and give a number."""

from pathlib import Path

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.recipe import Recipe
from rewards.sandbox.probe import Finding, Probe
from tests.orchestrator.factories import DOWNLOAD, fault, recipe, write_rows

pytestmark = pytest.mark.usefixtures("laptop")


def with_reward(name: str) -> Recipe:
    return recipe(rewards={"rubrics": {"default": {name: 1.0}}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "unknown reward function 'acuracy'; did you mean 'accuracy'?"),
        ("none.py:score", "no file none.py"),
        ("mine.py:scor", "mine.py defines no 'scor'; did you mean 'score'?"),
        ("broken.py:score", "broken.py is not valid Python"),
        ("no_such_package.x:score", "no module 'no_such_package' in this environment"),
        ("rollout.tasks.manners:quality", "has moved; its name is now 'rollout.data.tasks.manners:quality'"),
        ("json.no_such_module:score", "no module 'json.no_such_module'"),
        ("json.decoder:no_such_function", "defines no 'no_such_function'"),
    ],
)
def test_a_reward_that_does_not_exist(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported!')\ndef score(prompt, completion): return 1.0\n")
    (tmp_path / "broken.py").write_text("def score(:\n")
    text = fault(with_reward(name))
    assert "rewards.rubrics.default" in text
    assert message in text


@pytest.mark.parametrize("name", ["accuracy", "mine.py:score", "mine.py:alias", "mine.py:later"])
def test_a_reward_that_works_passes(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from beside import VALUE\n"
        "def score(prompt, completion, reference): return VALUE * (reference in completion)\n"
        "async def later(prompt, completion, reference): return {'value': VALUE, 'length': len(completion)}\n"
        "alias = score\n"
    )
    (tmp_path / "beside.py").write_text("VALUE = 0.25\n")
    form = f"rewards.rubrics.default: {name} has the form 'plain' by its signature: "
    first, *forms = preflight(with_reward(name))
    assert first == DOWNLOAD
    assert [note.partition(":")[0] for note in forms] == ["rewards.rubrics.default"] * (":" in name)
    assert all(note.startswith(form) for note in forms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nosuch\ndef f(p, c, r): return 1",
            "cannot import mine.py: ModuleNotFoundError: No module named 'nosuch', at ",
        ),
        ("import sys\nsys.exit('bye')\ndef f(p, c, r): return 1", "cannot import mine.py: SystemExit: bye"),
        ("import os\nos._exit(3)\ndef f(p, c, r): return 1", "the process that imports"),
        ("def f(p, c, r): return {}['difficulty']", "'mine.py:f' fails: KeyError: 'difficulty', at "),
        ("def f(p, c, r): return 'good'", "returned 'good', which is not a number"),
        (
            "def f(p, c): return 1.0",
            "fails: takes p, c, and not prompt, completion, reference and then columns: too many positional arguments",
        ),
        ("def f(p, c, r):\n    while True: pass", "mine.py:f took more than 1 s"),
    ],
)
def test_a_reward_that_does_not_work_is_told_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    told = fault(recipe(rewards={"function_timeout_s": 1, "rubrics": {"default": {"mine.py:f": 1.0}}}))
    assert told.startswith("rewards.rubrics.default: ")
    assert message in told


def test_a_group_function_is_tried_on_a_group(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(prompt, completions, reference): return [1.0]")
    rubric = {"default": {"all": {"name": "mine.py:f", "group": True}}}
    assert "it must be a list of 2 numbers" in fault(recipe(rewards={"rubrics": rubric}))


def test_the_form_of_a_function_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def theirs(completions, level, **kwargs): return [float(each) for each in level]\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info): return {'score': level_of(extra_info)}\n"
        "def level_of(extra): return extra['level']\n"
        "def any_form(**given): return [1.0] * len(given['completions'])\n"
    )
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "q?", "answer": "so", "level": 3, "extra_info": {"level": 3}}])
    rubric = {"mine.py:theirs": 1.0, "mine.py:compute_score": 1.0, "a": {"name": "mine.py:any_form", "form": "trl"}}
    said = recipe(data={"sources": {"b": {"path": "rows.jsonl"}}}, rewards={"rubrics": {"default": rubric}})
    forms = [note for note in preflight(said) if "has the form" in note]
    assert [note.partition(" has the form ")[2].partition(":")[0] for note in forms] == [
        "'trl' by its signature",
        "'verl' by its signature",
        "'trl' as the recipe says",
    ]
    told = fault(
        recipe(
            data={"sources": {"b": {"path": "rows.jsonl"}}}, rewards={"rubrics": {"default": {"mine.py:any_form": 1.0}}}
        )
    )
    assert "set form to one of 'plain', 'trl', 'trl-messages'" in told


def test_a_reward_server_is_not_asked_by_the_check() -> None:
    url = "http://127.0.0.1:9/get_reward"
    assert preflight(with_reward(url)) == [DOWNLOAD]
    told = fault(recipe(rewards={"rubrics": {"default": {"remote": {"name": url, "timeout": 1}}}}))
    assert "has no argument 'timeout'; did you mean 'timeout_s'?" in told


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(prompt, completion, reference, colour): return 1.0\n")
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "q?", "answer": "so", "level": 3}])
    told = fault(
        recipe(data={"sources": {"b": {"path": "rows.jsonl"}}}, rewards={"rubrics": {"default": {"mine.py:f": 1.0}}})
    )
    assert "needs 'colour': no argument in the recipe, and no column of the row (prompt, answer, level)" in told


def test_a_reward_is_tried_on_a_row_of_its_rubric(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def f(prompt, completion, reference):\n    raise ValueError(prompt + reference)\n"
    )
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "asked?", "answer": "so"}])
    sources = {"a": {"task": "arithmetic", "limit": 5}, "b": {"path": "rows.jsonl", "rubric": "mine"}}
    rubrics = {"default": {"accuracy": 1.0}, "mine": {"mine.py:f": 1.0}}
    told = fault(recipe(data={"sources": sources}, rewards={"rubrics": rubrics}))
    assert "ValueError: asked?so" in told
    assert "it was given the row rows.jsonl:1" in told


def test_an_empty_rubric_is_refused() -> None:
    assert "rewards.rubrics.default is empty" in fault(recipe(rewards={"rubrics": {"default": {}}}))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            {"name": "format", "strikt": True},
            "rewards.rubrics.default: reward function 'format' has no argument 'strikt'",
        ),
        ({"name": "length", "max_tokens": 9}, "reward function 'length' needs the argument 'buffer'"),
        ({"name": "code_tests", "scoring": "some"}, "scoring = 'some': input should be 'all' or 'fraction'"),
        ({"name": "language_consistency", "target": "xx"}, "target = 'xx' is not one of prompt, "),
        ({"name": "language_consistency", "target": 3}, "target = 3: input should be a valid string"),
        ({"name": "readability", "flags": ["loud"]}, "flags = 'loud' is not one of "),
        ({"name": "readability", "max_paragraph": 0}, "max_paragraph = 0"),
        ({"name": "length", "max_tokens": 9, "buffer": 10}, "buffer = 10 must be between 1 and max_tokens = 9"),
        ({"name": "length", "max_tokens": "9", "buffer": 1}, "max_tokens = '9': input should be a valid integer"),
        ({"name": "repetition", "free": 1.0}, "free is 0 or more and below 1"),
        ({"name": "format", "strict": "yes"}, "strict = 'yes': input should be a valid boolean"),
        ({"name": "accuracy", "pattern": "("}, "pattern = '(' is not a regular expression"),
        ({"name": "accuracy", "deadline_s": 0}, "deadline_s = 0 must be greater than 0"),
        (
            {"name": "reward_model", "path": "org/rm", "scope": "all"},
            "scope = 'all': input should be 'answer' or 'response'",
        ),
        ({"name": "judge", "endpoint": "h:1", "model": "m"}, "endpoint = 'h:1' is not a bare URL"),
        (
            {"name": "judge", "endpoint": "http://h/v1", "model": "m", "low": "a"},
            "low = 'a': input should be a valid number",
        ),
    ],
)
def test_arguments_that_a_function_does_not_take(function: dict[str, object], message: str) -> None:
    assert message in fault(recipe(rewards={"rubrics": {"default": {"functions": [function]}}}))


def test_a_code_rubric_needs_a_sandbox_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> Probe:
        finding = Finding(tier="A", holds=False, detail="unshare: Operation not permitted", way_out="allow it")
        return Probe(tier=None, findings=(finding,))

    monkeypatch.setattr("rewards.sandbox.probe.probe", nothing)
    rubric = {"rubrics": {"default": {"code_tests": 1.0}}}
    text = fault(recipe(rewards=rubric))
    assert "unshare: Operation not permitted" in text
    assert "sandbox.allow_weak=true" in text
    (_, note) = preflight(recipe(rewards=rubric, sandbox={"allow_weak": True}))
    assert "unshare" in note
    assert preflight(recipe(rewards={"rubrics": {"default": {"accuracy": 1.0}}})) == [DOWNLOAD]


def test_packages_of_programs_are_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def with_packages(*names: str) -> Recipe:
        return recipe(rewards={"rubrics": {"default": {"code_tests": 1.0}}}, sandbox={"packages": names})

    assert preflight(with_packages("numpy")) == [DOWNLOAD]
    assert fault(with_packages("numpy", "nunpy")).startswith(
        "sandbox.packages: 'nunpy' is not installed here; did you mean 'numpy'?"
    )
    (tmp_path / "licensed.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = fault(with_packages("numpy", "licensed"))
    assert text.startswith("sandbox.packages: licensed: ")
    assert "take it out of sandbox.packages" in text
