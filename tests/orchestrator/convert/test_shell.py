"""Shell scripts are read as a shell reads them, and nothing of them is run."""

from pathlib import Path

import pytest

from orchestrator.convert.settings import UNKNOWN
from orchestrator.convert.shell import Script, whole_sum
from rollout.errors import InputError


def words(text: str, **variables: str) -> list[list[str]]:
    return [[word.text for word in command.words] for command in Script("f.sh", text, variables).commands]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("a 'b c' \"d e\" f\\ g", ["a", "b c", "d e", "f g"]),
        ("a \\\n  b \\\n\tc", ["a", "b", "c"]),
        ("a \\\r\n  b", ["a", "b"]),
        ("a b # c 'd", ["a", "b"]),
        ("a b#c", ["a", "b#c"]),
        ("x=1; a $x ${x} \"$x-$x\" '$x'", ["a", "1", "1", "1-1", "$x"]),
        ("x=1\nexport y=$x$x\na $y", ["a", "11"]),
        ("x='1 2'; a $x \"$x\"", ["a", "1", "2", "1 2"]),
        ("a ${x:-7} ${x:-\"$HOME/d\"} ${HOME:-z}", ["a", "7", "/h/d", "/h"]),
        ("x=; a ${x:-7} ${x-8} b", ["a", "7", "b"]),
        ("a ${1:-8} $@ \"$@\" b \"${@:2}\"", ["a", "8", "b"]),
        ("n=4; a $((n * 2 + 1)) $(( (n + 1) * $n )) $((7 / 2))", ["a", "9", "20", "3"]),
        ("l=(b 'c d' # e )\n f=1); a \"${l[@]}\"", ["a", "b", "c d", "f=1"]),
        ("l=(b); l+=(c); a ${l[@]} \"${m[@]}\" d", ["a", "b", "c", "d"]),
        ("x=a; x+=b; $x", ["ab"]),
        ("a > log.txt 2>&1", ["a"]),
        ("a b &> log", ["a", "b"]),
        ("a $'b\\tc' d", ["a", "b\tc", "d"]),
        ("read -r -d '' c <<EOF\nm --x 1 \\\n --y $HOME\nEOF\na $c", ["a", "m", "--x", "1", "--y", "/h"]),
        ("a '[\"x\",\"y\"]' {b,c} k='v w'", ["a", '["x","y"]', "{b,c}", "k=v w"]),
        ("A=1 B=2 a c", ["a", "c"]),
    ],
)  # fmt: skip
def test_words_of_the_last_command(text: str, expected: list[str]) -> None:
    assert words(text, HOME="/h")[-1] == expected


def test_commands_are_apart() -> None:
    assert words("a && b | c; if d; then e; fi\nf &") == [
        ["a"],
        ["b"],
        ["c"],
        ["if", "d"],
        ["then", "e"],
        ["fi"],
        ["f"],
    ]


@pytest.mark.parametrize(
    "text", ["a $X", "a $(whoami)", "a `date`", "a ${X%/}", "a $((1 / 0))", "a $((X + 1))", 'a "$(echo ")")"']
)
def test_what_a_shell_alone_knows_stays_a_mark(text: str) -> None:
    assert UNKNOWN in words(text)[0][1]


def test_nothing_is_run(tmp_path: Path) -> None:
    target = tmp_path / "made"
    Script("f.sh", f'a $(touch {target}) `touch {target}` "$(touch {target})" ${{x:-$(touch {target})}}', {})
    assert not target.exists()


def test_lines_are_those_of_the_file() -> None:
    script = Script("f.sh", "# one\n\na \\\n  b \\\n  'c\nd' \\\n  e\n", {})
    assert [(word.text, word.line) for word in script.commands[0].words] == [("a", 3), ("b", 4), ("c\nd", 5), ("e", 7)]


@pytest.mark.parametrize("text", ["a 'b", 'a "b', "a ${b", "a $((1", "a $(b"])
def test_what_is_not_closed_is_told_by_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^f\.sh, line 2: .* is not closed"):
        words(f"x\n{text}")


@pytest.mark.parametrize("text", ["2**9999", "a.b", "__import__('os')", "9" * 5000, "(" * 400, "1 if 2 else 3", "1,2"])
def test_only_sums_of_whole_numbers_are_counted(text: str) -> None:
    assert whole_sum(text) is None
