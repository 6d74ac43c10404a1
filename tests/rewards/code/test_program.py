"""Programs out of responses."""

import pytest

from rewards.code.program import program_of


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("print(1)", "print(1)"),
        ("    return 1\n", "    return 1\n"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("```\nprint(1)\n```", "print(1)"),
        ("a\n```python\n1\n```\nb\n```python\n2\n```\nc", "2"),
        ("```python\n1\n```\n```text\nout\n```", "1"),
        ("```text\n1\n```\n```\n2\n```", "2"),
        ("```Python3\n1\n```\n```json\n{}\n```", "1"),
        ("```py\n1\n```", "1"),
        ("~~~python\n1\n~~~", "1"),
        ("````python\n'''\n```\n'''\n````", "'''\n```\n'''"),
        ("1. So:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("```python\nprint(1)", "print(1)"),
        ("```python\r\nprint(1)\r\n```\r\n", "print(1)\r"),
        ("```python title=a.py\n1\n```", "1"),
        ("<think>```python\n1\n```</think>```python\n2\n```", "2"),
        ("<think>\n```python\n1\n```\n</think>\n2", "\n2"),
        ("```python\n1\n```</think>", ""),
        ("<think>\n```python\n1\n```\n", ""),
        ("<think>a</think><answer>\nprint(1)\n</answer>", "\nprint(1)\n"),
        ("<answer>```python\n1\n```</answer>", "1"),
        ("the `x` of ```y``` is\n```python\n1\n```", "1"),
        ("", ""),
    ],
)
def test_the_program_of_a_response(response: str, program: str) -> None:
    if "<answer>```" in response:
        response = response.replace("<answer>", "<answer>\n").replace("</answer>", "\n</answer>")
    if "</think>```" in response:
        response = response.replace("</think>", "</think>\n")
    assert program_of(response) == program


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("say ```python\n1\n```", "1"),
        ("say ```\n1\n```", ""),
        ("<answer>```python\n1\n```</answer>", "1"),
        ("```python\n1```", "1"),
        ("```python\n1```</answer>", "1"),
        ("```{.python}\n1\n```\n```\n2\n```", "1"),
        ("```python3.11\n1\n```\n```\n2\n```", "1"),
        ("```python-repl\n>>> 1\n```\n```\n2\n```", "2"),
        ("```pycon\n>>> 1\n```\n```\n2\n```", "2"),
        ("```python\n'''\n    ```\n'''\n```", "'''\n    ```\n'''"),
        ("```python\ns = '<think>'\n```", "s = '<think>'"),
        ("so <think>\n```python\n1\n```", "so "),
    ],
)
def test_fences_in_disorder(response: str, program: str) -> None:
    assert program_of(response) == program


def test_a_thought_that_the_prompt_opened_and_nobody_closed_holds_no_program() -> None:
    assert program_of("```python\n1\n```", prompt="<think>") == ""
    assert program_of("```python\n1\n```\n</think>\n```python\n2\n```", prompt="<think>") == "2"


@pytest.mark.parametrize(
    "line",
    ["`" * 10**6, "```" + "a" * 10**6 + "`", "```" + " " * 10**6 + "`", "```x\n```\n" * 10**5, "</think>" * 10**5],
)
def test_finding_the_program_is_linear(line: str) -> None:
    assert len(program_of(line)) <= len(line)
