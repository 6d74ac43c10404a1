"""Flags that filters will go by."""

import pytest

from rewards.text.readability import FLAGS, readability
from rollout.errors import InputError
from tests.rewards.text.test_repetition import THOUGHT, fresh

LONG_EN = (
    "First we note that the two numbers differ by three, and that their product is even. "
    "Therefore one of them is even and the other is odd, which leaves only a few cases to look at. "
)


def sentences(count: int) -> str:
    return " ".join(f"Now the number {fresh(3, i)} is added to the sum of the others." for i in range(count))


@pytest.mark.parametrize(
    ("thought", "raised"),
    [
        (THOUGHT, set()),
        ("7+8=15,2+4+1=7", set()),
        ("", set()),
        (LONG_EN, set()),
        (f"{LONG_EN} 所以其中一个是偶数，另一个是奇数。", {"mixed_languages"}),
        (f"{LONG_EN} Deshalb ist eine der beiden Zahlen gerade, und die andere ist ungerade.", {"mixed_languages"}),
        (sentences(60), {"long_paragraph"}),
        (sentences(60).replace(". ", ".\n"), set()),
        ("1+" * 3000 + "1", {"long_paragraph", "repetitive"}),
        (f"{LONG_EN}\n```python\nprint(1)\n```\nSo it prints one.", {"code_blocks"}),
        ("```python\ndef f(x):\n    return x + 1\n\nprint(f(1))\n```", {"code_blocks", "code_only"}),
        ("```python\ndef f(x):\n    return x", {"code_blocks", "code_only"}),
        ("Code:\n```\nprint(1)\n```\n", {"code_blocks", "code_only"}),
        (
            "```\n我们需要计算这个数字的总和，然后检查结果是否正确。\n```",
            {"code_blocks", "code_only", "mixed_languages"},
        ),
        (LONG_EN * 10, {"repetitive"}),
    ],
)
def test_flags(thought: str, raised: set[str]) -> None:
    found = readability("", f"<think>{thought}</think><answer>4</answer>", target="en")
    assert {name for name in FLAGS if found[name]} == raised
    assert found["value"] == float(not raised - {"code_blocks"})
    assert set(found) == {"value", *FLAGS}
    assert set(found.values()) <= {0.0, 1.0}


def test_flags_that_count_can_be_chosen() -> None:
    text = f"<think>{LONG_EN}\n```\nprint(1)\n```</think>4"
    assert readability("", text)["value"] == 1.0
    assert readability("", text, flags=["code_blocks"])["value"] == 0.0
    assert readability("", text, flags=[])["value"] == 1.0
    with pytest.raises(InputError, match="flags = 'ugly' is not one of mixed_languages"):
        readability("", text, flags=["ugly"])


def test_a_reply_without_a_thought_is_judged_itself() -> None:
    assert readability("", sentences(60))["long_paragraph"] == 1.0
    assert readability("", f"<think>{LONG_EN}</think>{sentences(60)}")["long_paragraph"] == 0.0


def test_scripts_without_word_spaces() -> None:
    line = "".join(chr(0x4E00 + i) for i in range(900))
    assert readability("", line, target="zh")["long_paragraph"] == 1.0
    assert readability("", line[:700], target="zh")["long_paragraph"] == 0.0
