"""Where the fenced blocks of a text are. What programs are read out of them is in `tests/rewards/code/test_program.py`."""

import pytest

from rewards.text.fences import fenced_blocks


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no block, `code` and ```more``` code", []),
        ("a\n```python x\n1\n\n2\n```\nb", [("python x", "1\n\n2", "```python x\n1\n\n2\n```")]),
        ("```\n1\n```\n~~~\n2\n~~~", [("", "1", "```\n1\n```"), ("", "2", "~~~\n2\n~~~")]),
        ("~~~~\n~~~\n```\n~~~~", [("", "~~~\n```", "~~~~\n~~~\n```\n~~~~")]),
        ("so ```py\n1\n```", [("py", "1", "```py\n1\n```")]),
        ("  ```\n  1\n```\n", [("", "1", "```\n  1\n```")]),
        ("<answer>```\n1\n```</answer>b", [("", "1\n```</answer>b", "```\n1\n```</answer>b")]),
        ("<answer>```\n1\n```</answer>\nb", [("", "1", "```\n1\n```</answer>")]),
        ("```\n1", [("", "1", "```\n1")]),
        ("```", [("", "", "```")]),
        ("```\n1```\nb", [("", "1", "```\n1```")]),
    ],
)
def test_blocks(text: str, blocks: list[tuple[str, str, str]]) -> None:
    found = fenced_blocks(text)
    assert [(block.language, block.text, text[block.start : block.end]) for block in found] == blocks
