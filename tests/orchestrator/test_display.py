"""What a run prints: samples of models cannot do anything to a terminal, and names are no markup."""

from typing import Any

import pytest

from orchestrator.cli import run
from orchestrator.display import Display
from rollout.data.templates import R1_ZERO

LONG = "How many legs have three spiders and two horses together, if none of them has lost one?"
CHAT = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{}\nPut it in \\boxed{{}}.<|im_end|>\n<|im_start|>assistant\n"


def printed(capsys: pytest.CaptureFixture[str], *samples: dict[str, Any], title: str = "model") -> list[str]:
    Display().samples(title, samples)
    return capsys.readouterr().out.splitlines()[1:]


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("27+48=", "27+48=75"),
        (R1_ZERO.replace("{prompt}", "1+1?"), "1+1? 75"),
        (CHAT.format("1+1?"), "1+1? Put it in \\boxed{}. 75"),
        (CHAT.format(LONG), f"{LONG[:59]}… 75"),
        # In a form that is not known the question may stand at the end.
        (f"Answer in one word. Be short. {LONG}", f"…{LONG[-59:]}75"),
    ],
)
def test_a_sample_begins_with_its_question(prompt: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, {"prompt": prompt, "completion": "75", "correct": True})
    assert lines == ["model", f"  right  {line}"]


def test_a_terminal_obeys_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\x1b]0;x\x07\x9b1m\u202eb\x00\ud800 [red]c[/red]\r\nd é 你"
    lines = printed(capsys, {"prompt": "a\x1b[1m\x9b=", "completion": hostile, "correct": False})
    inert = r"a\x1b[2J\x1b]0;x\x07\x9b1m\u202eb\x00\ud800 [red]c[/red] d é 你"
    slashes = "\\\\\\"
    assert printed(capsys, {"prompt": slashes, "completion": slashes})[1].strip() == slashes * 2
    assert lines[1] == rf"  wrong  a\x1b[1m\x9b={inert}"


def test_records_of_earlier_versions_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, {"prompt": "1+1=", "completion": "2"})[1].split() == ["1+1=2"]


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.table("[/a]", ["[b]", "[/c]"], [["[/d]", "[e]"]])
    display.note("model  /runs/[/x]")
    out = capsys.readouterr().out
    assert all(name in out for name in ("[/a]", "[b]", "[/c]", "[/d]", "[e]", "/runs/[/x]"))


def test_a_terminal_obeys_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    Display().note("reward of 'a\x1b[2J[red]' failed:\nb\r")
    assert capsys.readouterr().out == "reward of 'a\\x1b[2J[red]' failed:\nb\\r\n"
    assert run(["train", "no\x1b[2Jthing"]) == 2
    assert "\x1b" not in capsys.readouterr().err
