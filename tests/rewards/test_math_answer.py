"""Final answers and when two are equal."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math_answer import accuracy_reward, final_answer, parse_number, same_answer

# --- Where the answer is


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>1+1</think><answer>2</answer>", "2"),
        ("<answer> 2\n</answer>", "2"),
        ("<answer>2</answer> and more", "2"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<think><answer>1</answer></think><answer>2</answer>", "2"),
        ("<think>so \\boxed{1}, #### 1</think>2", "2"),
        ("<think>a</think><think>\\boxed{1}</think>2", "2"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer>2</answer> \\boxed{3} #### 4", "2"),
        ("so \\boxed{3} #### 4", "3"),
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\boxed{a{b{c}}d}", "a{b{c}}d"),
        ("\\boxed{x", "\\boxed{x"),
        ("work\n#### 1,000", "1,000"),
        ("work\n#### 1\nthen\n#### 2\nend", "2"),
        ("####5", "5"),
        ("first\n\nthe last line  \n\n", "the last line"),
        ("42", "42"),
        ("</answer>42", "</answer>42"),
        ("<answer>4", "<answer>4"),
    ],
)
def test_the_answer(completion: str, expected: str) -> None:
    assert final_answer(completion) == expected


@pytest.mark.parametrize(
    "completion",
    [
        "",
        " \n\t",
        "<answer></answer>",
        "<answer> </answer>",
        "\\boxed{}",
        "####",
        "#### \n",
        "<think>5</think>",
        "</think>",
    ],
)
def test_no_answer(completion: str) -> None:
    assert final_answer(completion) is None
    assert accuracy_reward(completion, "5") == 0.0


def test_an_empty_answer_is_not_replaced_by_an_earlier_or_weaker_one() -> None:
    assert final_answer("5 <answer></answer>") is None
    assert final_answer("<answer>5</answer><answer></answer>") is None


# --- What equals what


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("27", 27),
        ("27.0", 27),
        ("75.", 75),
        ("75 .", 75),
        ("+5", 5),
        ("-5", -5),
        ("- 5", -5),
        ("-0", 0),
        ("007", 7),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("0.1", Fraction(1, 10)),
        ("1,000", 1000),
        ("1,234,567.89", Fraction(123456789, 100)),
        ("$12", 12),
        ("$ 12.50", Fraction(25, 2)),
        ("-$12", -12),
        ("12$", 12),
        ("$12$", 12),
        ("75%", 75),
        ("75 %", 75),
        ("75\\%", 75),
        ("75%.", 75),
        ("3/4", Fraction(3, 4)),
        (" 3 / 4 ", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("-6/-8", Fraction(3, 4)),
        ("0/7", 0),
        ("1.5/3", Fraction(1, 2)),
    ],
)
def test_numbers(text: str, value: Fraction | int) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "-",
        "$",
        "%",
        "/",
        "x",
        "1x",
        "1 2",
        "1e5",
        "1/0",
        "1/",
        "/2",
        "1/2/3",
        "1,00",
        "1,0000",
        ",000",
        "10,00,000",
        "1.2.3",
        "--5",
        "5-",
        "nan",
        "inf",
        "∞",
        "0x10",
        "1_000",
        "3 apples",
        "\\frac{1}{2}",
    ],
)
def test_not_numbers(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("27", "27.0"),
        ("1,000", "1000"),
        ("$1,000.00", "1000"),
        ("6/8", "0.75"),
        ("75%", "75"),
        ("-3", "-3.0"),
        ("75.", "75.0"),
        ("Paris", "paris"),
        ("Paris.", "Paris"),
        ("  new   york ", "New York"),
        ("(a, b)", "(A, b)"),
        ("x", "$x$"),
    ],
)
def test_equal(found: str, reference: str) -> None:
    assert same_answer(found, reference)
    assert same_answer(reference, found)
    assert accuracy_reward(f"<answer>{found}</answer>", reference) == 1.0


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("27", "28"),
        ("27", "-27"),
        ("0.333", "1/3"),
        ("75%", "0.75"),
        ("1000", "1,0000"),
        ("27 apples", "27"),
        ("The answer is 27", "27"),
        ("27 28", "27"),
        ("new york", "newyork"),
        ("5", "V"),
        ("1e3", "1000"),
    ],
)
def test_different(found: str, reference: str) -> None:
    assert not same_answer(found, reference)
    assert not same_answer(reference, found)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.fractions(max_denominator=10**6), st.booleans())
def test_a_number_equals_itself_however_it_is_written(value: Fraction, separated: bool) -> None:
    top = f"{value.numerator:,}" if separated else str(value.numerator)
    assert parse_number(f"{top}/{value.denominator}") == value


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"0123456789,.-+$%/ \\{}#\n", "<answer>", "</answer>", "\\boxed{", "####"])))
def test_no_text_raises(parts: list[str]) -> None:
    text = "".join(parts)
    final_answer(text)
    assert same_answer(text, text)
    assert accuracy_reward(text, "7") in (0.0, 1.0)


# --- Hostile input


def test_long_digit_strings_are_compared_as_text() -> None:
    long = "9" * 100_000
    assert parse_number(long) is None
    assert accuracy_reward(f"<answer>{long}</answer>", long) == 1.0
    assert accuracy_reward(f"<answer>{long}</answer>", "9" * 99_999) == 0.0
    assert accuracy_reward(f"<answer>1/{long}</answer>", "1") == 0.0
    assert parse_number("9" * 400) == 10**400 - 1
    assert parse_number("0." + "0" * 397 + "1") == Fraction(1, 10**398)


@pytest.mark.parametrize(
    "piece",
    [
        "<answer>",
        "</answer>",
        "<answer>1</answer>",
        "</think>",
        "<think>",
        "\\boxed{",
        "{",
        "}",
        "####",
        "#",
        "\n",
        "1",
        "1,",
        "1,000,",
        ",111",
        "1/",
        "-",
        "$",
        "%",
        ".",
        " ",
        "\\",
        "a ",
    ],
)
def test_a_megabyte_of_anything_is_judged_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert accuracy_reward(text, "5") == 0.0
    assert accuracy_reward(f"{text}<answer>5</answer>", "5") == 1.0
    assert accuracy_reward(f"<answer>{text}</answer>", "5") == 0.0


def test_many_braces_are_judged_at_once() -> None:
    assert accuracy_reward("\\boxed{" + "{" * 300_000, "5") == 0.0
    assert accuracy_reward("\\boxed{" * 100_000 + "5" + "}" * 100_000, "5") == 1.0
