"""`rayzero score`: order, statuses, malformed lines, and where a rubric comes from."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from orchestrator.cli import run
from orchestrator.commands import score as command
from orchestrator.config.load import to_toml
from orchestrator.evaluation.score_file import find_rubric, sample_of, score_lines
from orchestrator.run.store import RunStore
from rollout.data.json_text import integer, read_json
from rollout.data.rows import Source
from rollout.data.sources import load_rows
from rollout.errors import InputError
from tests.orchestrator.factories import model_folder, recipe

LINES = [
    {"id": "right", "response": "<answer>1,234</answer>", "answer": "1234"},
    {"id": 2, "response": "\\boxed{(x+1)^2}", "answer": "x^2+2x+1"},
    {"response": "\\boxed{7}", "answer": 8},
    {"id": "none", "response": "\\boxed{7}", "answer": " "},
]


def score(rubric: str, lines: list[bytes], *settings: str) -> list[dict[str, Any]]:
    functions, resources = find_rubric(rubric, settings)
    return [json.loads(line) for line in score_lines(lines, functions, resources, processes=1)]


def test_every_line_gives_one_line_in_order_whatever_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [b'{"id": 5, "response": ', b'["a list"]', b"\xff\xfe", b'{"id": 8, "response": null}', b"[" * 100_000]
    broken += [b"", b" \t\r", b'{"response": "7", "answer": NaN}', b'{"id": 1e999, "response": "7", "answer": "7"}']
    lines = [*(json.dumps(line).encode() for line in LINES), *broken] * 9  # more than a chunk for each process
    file = tmp_path / "in.jsonl"
    file.write_bytes(b"\n".join([*lines, b"", b""]))
    out = tmp_path / "out.jsonl"
    assert run(["score", "math", str(file), "--out", str(out), "--processes", "2"]) == 1
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == len(lines)
    right, algebra, wrong, unanswered, *malformed = records[:13]
    assert right == {
        "id": "right", "reward": 1.0, "status": "ok", "breakdown": {"accuracy": 1.0}, "extracted": "1,234"
    }  # fmt: skip
    assert (algebra["id"], algebra["reward"]) == (2, 1.0)
    assert ("id" in wrong, wrong["reward"], wrong["extracted"]) == (False, 0.0, "7")
    assert (unanswered["reward"], unanswered["status"]) == (None, "error")
    assert "no reference answer" in unanswered["error"]
    assert all(record["status"] == "error" and "malformed line" in record["error"] for record in malformed)
    assert malformed[3]["id"] == 8
    assert records == records[:13] * 9
    assert "117 scored: 27 ok, 90 error; mean reward 0.667" in capsys.readouterr().err


def test_code_by_tests_of_three_forms_with_limits_of_the_line() -> None:
    lines = [
        {"response": "```python\nprint(int(input()) * 2)\n```", "tests": [{"input": "2", "output": "4\n"}]},
        {
            "response": "def f(x): return x + 1",
            "tests": [{"assert": "assert f(2) == 3"}, {"assert": "assert f(0) == 0"}],
        },
        {
            "response": "```\n    return x + 1\n```",
            "prompt": "def f(x):\n",
            "entry_point": "f",
            "test": "def check(candidate):\n    assert candidate(1) == 2",
        },
        {"response": "while True: pass", "tests": [{"input": "", "output": ""}], "time_limit_s": 0.3},
        {"response": "print(1)", "tests": []},
    ]
    records = score("code", [json.dumps(line).encode() for line in lines], "scoring=fraction")
    assert [record["reward"] for record in records] == [1.0, 0.5, 1.0, 0.0, None]
    assert [record["status"] for record in records] == ["ok", "ok", "ok", "timeout", "error"]
    assert records[0]["extracted"].strip() == "print(int(input()) * 2)"


def test_a_program_that_lacks_a_package_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests = [{"input": "", "output": "10"}]
    lines = [
        {"response": "import numpy as np\nprint(np.arange(5).sum())", "tests": tests},
        {"response": "print(1)", "tests": tests},
    ]
    file = tmp_path / "programs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert run(["score", "code", str(file)]) == 0
    said = capsys.readouterr()
    lacking, wrong = map(json.loads, said.out.splitlines())
    assert (lacking["reward"], lacking["status"], lacking["breakdown"]["code_tests.missing_package"]) == (
        0.0,
        "ok",
        1.0,
    )
    assert "No module named 'numpy'; sandbox.packages may name it" in lacking["reason"]
    assert (wrong["reason"], wrong["breakdown"]["code_tests.missing_package"]) == ("test 1 of 1: wrong output", 0.0)
    assert "; 1 asked for packages that are not in the sandbox (sandbox.packages)" in said.err
    assert run(["score", "code", str(file), 'sandbox.packages=["numpy"]']) == 0
    said = capsys.readouterr()
    assert "reason" not in json.loads(said.out.splitlines()[0])
    assert "asked for packages" not in said.err


def test_a_rubric_sets_the_tolerance_of_programs_and_a_line_another() -> None:
    tests = [{"input": "", "output": "0.3334"}]
    lines = [
        {"response": "print(1 / 3)", "tests": tests},
        {"response": "print(1 / 3)", "tests": tests, "tolerance": 1e-6},
    ]
    for settings, rewards in (([], [0, 0]), (["tolerance=1e-3"], [1, 0])):
        records = score("code", [json.dumps(line).encode() for line in lines], *settings)
        assert [record["reward"] for record in records] == rewards


def test_a_recipe_s_rubric() -> None:
    text = "<think>1+1</think><answer>2</answer>"
    line = json.dumps({"response": text, "answer": "2"}).encode()
    (record,) = score("arithmetic:default", [line])
    assert record["reward"] == pytest.approx(1.2)
    (record,) = score("arithmetic", [line], "rewards.rubrics.default.format=0.5")
    assert record["reward"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("maths", [], "unknown rubric 'maths'; did you mean 'math'?"),
        ("math", ["patern=x"], "reward function 'accuracy' has no argument 'patern'; did you mean 'pattern'?"),
        ("math", ["pattern"], "write an argument as key=value"),
        (
            "code",
            ["tolerance=2"],
            "reward function 'code_tests': tolerance = 2: a number from 0 to below 1 is needed",
        ),
        (
            "code",
            ["tolerance=x"],
            "reward function 'code_tests': tolerance = 'x': input should be a valid number",
        ),
        ("code", ["sandbox.packages=3"], "sandbox.packages = 3: input should be a list"),
        ("code", ["sandbox.package=3"], "sandbox.package = 3"),
        (
            "code",
            ['sandbox.packages=["nunpy"]'],
            "sandbox.packages: 'nunpy' is not installed here; did you mean 'numpy'?",
        ),
        ("code", ["scoring=half"], "scoring = 'half': input should be 'all' or 'fraction'"),
        ("arithmetic:other", [], "recipe arithmetic has no rubric 'other'; it has: default"),
    ],
)
def test_a_rubric_that_is_not_there(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        score(name, [], *settings)
    assert message in str(caught.value)


def test_a_rubric_with_the_reward_model_of_a_stage_is_scored_by_a_run(tmp_path: Path) -> None:
    pairs = {"path": "p.jsonl", "chosen_column": "good", "rejected_column": "bad"}
    stages = [
        {"name": "helpful", "kind": "reward_model", "data": {"sources": {"a": pairs}}},
        {"name": "rl", "kind": "grpo", "data": {"sources": {"a": {"task": "arithmetic"}}}},
    ]
    rubrics = {"default": {"accuracy": 1.0}, "general": {"helpful": {"name": "reward_model", "path": "stage:helpful"}}}
    made = recipe(data={}, stages=stages, rewards={"rubrics": rubrics})
    run_dir = RunStore(tmp_path / "r", made).folder
    (tmp_path / "r.toml").write_bytes((run_dir / "recipe.toml").read_bytes())
    with pytest.raises(InputError) as caught:
        find_rubric(f"{tmp_path}/r.toml:general", [])
    assert str(caught.value) == (
        'path = "stage:helpful" is a reward model that a run trains; score with a run of the recipe: '
        "rayzero score RUN:general FILE"
    )
    assert [spec.label for spec in find_rubric(f"{tmp_path}/r.toml:default", [])[0]] == ["accuracy"]
    with pytest.raises(InputError, match=r"stage helpful of .* is not finished; continue with `rayzero train"):
        find_rubric(f"{run_dir}:general", [])
    export = model_folder(run_dir / "helpful" / "export")
    (spec,), _ = find_rubric(f"{run_dir}:general", [])
    assert spec.args == {"path": str(export), "scope": "answer"}


def test_lines_are_taken_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of any size is never held whole."""
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield b'{"response": "\\\\boxed{1}", "answer": "1"}'

    functions, resources = find_rubric("math", [])
    scores = score_lines(endless(), functions, resources, processes=1)
    assert json.loads(next(scores))["reward"] == 1.0
    assert taken < 1000
    scores.close()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("none.py:f", "none.py"),
        ("mine.py:other", "other"),
        ("rollout.tasks.manners:quality", "rollout.data.tasks.manners"),
    ],
)
def test_a_function_that_is_not_there_is_told_once_and_not_in_every_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], function: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def f(prompt, completion, reference):\n    return 1.0\n")
    rubric = {"rubrics": {"default": {"own": {"name": function}}}}
    (tmp_path / "own.toml").write_text(tomli_w.dumps(to_toml(recipe(rewards=rubric))))
    (tmp_path / "in.jsonl").write_text('{"response": "x"}\n')
    assert run(["score", "own.toml", "in.jsonl"]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_functions_of_other_trainers_get_the_columns_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def theirs(completions, level, **kwargs): return [each + 0.5 if each else None for each in level]\n"
        "def ranks(prompt, completions, reference): return [1.0 for each in completions]\n"
    )
    rubric = {"mine.py:theirs": 1.0, "ranks": {"name": "mine.py:ranks", "group": True}}
    (tmp_path / "own.toml").write_text(tomli_w.dumps(to_toml(recipe(rewards={"rubrics": {"default": rubric}}))))
    (tmp_path / "in.jsonl").write_text('{"response": "x", "level": 3}\n{"response": "x", "level": 0}\n')
    assert run(["score", "own.toml", "in.jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["breakdown"] for line in lines] == [{"mine.py:theirs": 3.5, "ranks": 1.0}, {"ranks": 1.0}]
    assert [line["reward"] for line in lines] == [4.5, 1.0]


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stdin:
        buffer = io.BytesIO(b'{"response": "\\\\boxed{1}", "answer": "1"}\n')

    monkeypatch.setattr("sys.stdin", Stdin)
    assert run(["score", "math", "-", "--processes", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0


def test_a_list_of_accepted_answers_is_read_as_in_training() -> None:
    lines = [{"response": "so \\boxed{1/2}", "answer": ["0.5", "7"]}, {"response": "so \\boxed{42}", "answer": [42]}]
    records = score("math", [json.dumps(line).encode() for line in lines])
    assert [record["reward"] for record in records] == [1.0, 1.0]


def test_a_sample_holds_further_columns_as_text() -> None:
    sample = sample_of({"response": "x", "answer": 7, "tests": [{"input": "1"}], "none": None})
    assert sample.answer == "7"
    assert sample.fields == {"answer": "7", "tests": '[{"input": "1"}]', "none": ""}


LONG = "9" * 5000


ANSWERS = (
    "7", "-0.50", "3.14159265358979323846", LONG, f'["1", {LONG}]', '"x"', '["0.5", 2.50]', '{"x": 1}', "{}", "[]", '["1", null]',
    '[["1"]]', "true", "1e400",
)  # fmt: skip


def test_an_answer_means_the_same_as_in_training(tmp_path: Path) -> None:
    lines = [f'{{"response": "x", "answer": {answer}}}' for answer in ANSWERS]
    statuses = [record["status"] for record in score("format", [line.encode() for line in lines])]
    assert statuses == ["ok"] * 7 + ["error"] * 7
    for answer, line, status in zip(ANSWERS, lines, statuses, strict=True):
        (tmp_path / "a.jsonl").write_text(f'{{"prompt": "p", "answer": {answer}}}\n')
        if status == "ok":
            (row,) = load_rows(Source(name="s", path=str(tmp_path / "a.jsonl")), seed=1)
            assert sample_of(read_json(line)).answer == row.answer
        else:
            with pytest.raises(InputError, match=r"a\.jsonl:1: "):
                load_rows(Source(name="s", path=str(tmp_path / "a.jsonl")), seed=1)


def test_numbers_of_any_length_are_scored() -> None:
    lines = [
        f'{{"id": {LONG}, "response": "\\\\boxed{{{LONG}}}", "answer": {LONG}}}',
        f'{{"response": "\\\\boxed{{{LONG[:-1]}8}}", "answer": {LONG}}}',
        '{"response": "\\\\boxed{3.14159265358979323847}", "answer": 3.14159265358979323846}',
    ]
    executor = score_lines([line.encode() for line in lines], *find_rubric("math", []), processes=1)
    records = [read_json(line) for line in executor]
    assert [record["reward"] for record in records] == [1.0, 0.0, 0.0]
    assert records[0]["id"] == integer(LONG)


def test_a_program_is_compared_with_an_integer_of_any_length() -> None:
    program = "```python\ndef f(x):\n    return 10**5000 - x\n```"
    tests = f'{{"inputs": [[1]], "outputs": [{LONG}]}}'
    lines = [
        f'{{"response": {json.dumps(program)}, "fn_name": "f", "tests": {each}}}'
        for each in (tests, tests.replace("[[1]]", "[[2]]"))
    ]
    assert [record["reward"] for record in score("code", [line.encode() for line in lines])] == [1.0, 0.0]


def test_a_reference_that_is_an_object_is_an_error_of_accuracy() -> None:
    (record,) = score("math", [json.dumps({"response": "\\boxed{1}", "answer": '{"x": 1}'}).encode()])
    assert record["status"] == "error"
    assert record["error"] == 'accuracy: the reference is {"x": 1}, not an answer or a list of accepted ones'


def test_rows_of_any_file_and_columns_inside_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": "user", "content": "6*7?"}]
    held = [
        {"prompt": messages, "response": f"\\boxed{{{n}}}", "reward_model": {"ground_truth": "42"}} for n in (42, 4)
    ]
    assert sample_of(held[0], "reward_model.ground_truth").prompt == "6*7?"
    text = "".join(json.dumps(row) + "\n" for row in held)
    (tmp_path / "a.json").write_text(json.dumps(held))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    pq.write_table(pa.Table.from_pylist(held), tmp_path / "a.parquet")
    for name in ("a.json", "a.jsonl.gz", "a.parquet"):
        command.score("math", str(tmp_path / name), answer_column="reward_model.ground_truth", processes=1)
        rewards = [json.loads(line)["reward"] for line in capsys.readouterr().out.splitlines()]
        assert rewards == [1.0, 0.0], name


def test_a_line_with_the_answer_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"response": "Half.\\nAnswer: 4", "answer": 4}\n')
    command.score("answer-line", str(tmp_path / "a.jsonl"), processes=1)
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0
