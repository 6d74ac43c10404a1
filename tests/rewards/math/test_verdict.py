"""The exact rungs, and what callers rely on. The verdicts themselves are a table: `corpus.py`."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math import algebra as math_algebra
from rewards.math.exact import compare, groups_of_equals
from rewards.math.extract import final_answer
from rewards.math.grammar import NotAlgebra
from rewards.math.numbers import plain_number
from rewards.math.spelling import normal
from rewards.math.verdict import decide
from tests.rewards.math.corpus import RESPONSES, RIGHT, WRONG

# --- Numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [("27", 27), ("27.0", 27), ("+5", 5), ("-5", -5), ("- 5", -5), ("-0", 0), ("007", 7), (".5", Fraction(1, 2)),
     ("-.5", Fraction(-1, 2)), ("0.1", Fraction(1, 10)), ("1,000", 1000), ("1 000", 1000),
     ("1,234,567.89", Fraction(123456789, 100)), ("3/4", Fraction(3, 4)), ("-3 / 4", Fraction(-3, 4)),
     ("-6/-8", Fraction(3, 4)), ("0/7", 0), ("1.5/3", Fraction(1, 2)), ("9" * 400, 10**400 - 1)],
)  # fmt: skip
def test_numbers(text: str, value: Fraction | int) -> None:
    assert plain_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "/", "x", "1x", "1 2", "1e5", "1/0", "1/", "/2", "1/2/3", "1,00", "1,0000", ",000", "10,00,000", "1.2.3",
     "--5", "5-", "nan", "inf", "∞", "0x10", "1_000", "3 apples", "٣", "²", "9" * 401],
)  # fmt: skip
def test_not_numbers(text: str) -> None:
    assert plain_number(text) is None


def equal(found: str, reference: str) -> bool:
    return compare(found, reference) is True


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.fractions(max_denominator=10**6), st.booleans())
def test_a_number_equals_itself_however_it_is_written(value: Fraction, separated: bool) -> None:
    top = f"{value.numerator:,}" if separated else str(value.numerator)
    assert plain_number(f"{top}/{value.denominator}") == value
    assert equal(f"\\frac{{{top.replace(',', '{,}')}}}{{{value.denominator}}}", str(value))


_NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12).map(Fraction),
    st.builds(Fraction, st.integers(-(10**4), 10**4), st.integers(1, 400)),
    st.builds(Fraction, st.integers(-(10**6), 10**6), st.sampled_from([10, 100, 1000, 8, 64])),
)


def forms(value: Fraction) -> list[str]:
    """How a number may be written."""
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    fractions = [
        f"{sign}{top}/{bottom}", f"{sign}\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{sign}{3 * top}}}{{{3 * bottom}}}",
        f"{sign}{top} \\div {bottom}", f"x = {sign}\\tfrac{{{top}}}{{{bottom}}}", f"{sign}{top}⁄{bottom}",
    ]  # fmt: skip
    if bottom == 1:
        return [
            *fractions, f"{sign}{top}", f"{sign}{top:,}", f"{sign}{top}.00", f"{sign}0{top}", f"{sign}{top:,}".replace(",", "{,}"),
            f"${sign}{top}$", f"\\text{{{sign}{top}}}", f"{sign}\\${top:,}", f"{sign}{top * 10}e-1", f"{sign}{top}".replace("-", "−"),
            f"{sign}{top}\\cdot 10^{{0}}", f"\\mathbf{{{sign}{top}}}", f"**{sign}{top}**", f"The answer is {sign}{top}.",
        ]  # fmt: skip
    whole, part = divmod(top, bottom)
    if whole:
        fractions += [f"{sign}{whole}\\frac{{{part}}}{{{bottom}}}", f"{sign}{whole} {part}/{bottom}"]
    if 10**12 % bottom == 0:
        digits = f"{top * (10**12 // bottom):013}"
        decimal = f"{sign}{digits[:-12]}.{digits[-12:]}"
        fractions += [decimal, decimal.rstrip("0"), f"{decimal} \\times 10^0", f"{decimal}\\text{{ kg}}"]
    return fractions


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_NUMBERS, _NUMBERS, st.data())
def test_two_forms_are_equal_where_their_numbers_are(one: Fraction, other: Fraction, data: st.DataObject) -> None:
    for near in (other, one + Fraction(1, 10**9), one + 1, -one, one * 10, one / 1000):
        left, right = data.draw(st.sampled_from(forms(one))), data.draw(st.sampled_from(forms(near)))
        if "\\$" in left + right and "kg" in left + right:
            continue
        assert equal(left, right) == equal(right, left) == (one == near), (left, right)
    left, right = (data.draw(st.sampled_from(forms(one))) for _ in range(2))
    assert equal(left, right)


# --- Algebra


_EXPRESSIONS = st.recursive(
    st.sampled_from(["x", "y", "2", "3", "\\sqrt{2}", "\\sqrt{6}", "\\pi", "i", "0.5", "\\sqrt[3]{4}"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "\\cdot "]), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"\\frac{{{t[0]}}}{{{t[1]}+7}}"),
        inner.map(lambda t: f"({t})^2"),
    ),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(_EXPRESSIONS, _EXPRESSIONS)
def test_algebra_knows_the_laws(a: str, b: str) -> None:
    """Commutation, distribution, and that one more is not the same."""
    same = [(f"{a}+{b}", f"{b}+{a}"), (f"{a}*{b}", f"{b}*{a}"), (f"({a}+{b})^2", f"({a})^2+2*{a}*{b}+({b})^2")]
    for left, right in same:
        try:
            values = math_algebra.parse(left), math_algebra.parse(right), math_algebra.parse(f"{right}+1")
        except NotAlgebra:
            continue
        assert values[0].equals(values[1])
        assert values[0].equals(values[2]) is False


# --- Verdicts by the exact rungs alone


def boxed(answer: str) -> str:
    return f"So the result is $\\boxed{{{answer}}}$."


def test_the_exact_rungs_never_contradict_the_corpus() -> None:
    rows = [(boxed(answer), gold, None, "correct") for answer, gold in RIGHT]
    rows += [(boxed(answer), gold, None, "wrong") for answer, gold in WRONG]
    found = [(row, decide(row[0], row[1], row[2]).status) for row in [*rows, *RESPONSES]]
    assert [(row, status) for row, status in found if status not in (row[3], "needs_symbolic")] == []
    # What is left for sympy is a small part.
    assert sum(status == "needs_symbolic" for _, status in found) < len(found) / 6


def test_a_reference_may_be_a_whole_solution() -> None:
    assert decide("\\boxed{18}", "She makes 9 * 2 = $18.\n#### 18").value == 1.0
    assert decide("\\boxed{18}", "so \\boxed{18}.").value == 1.0
    assert decide("\\boxed{9}", "She makes 9 * 2 = $18.\n#### 18").value == 0.0


@pytest.mark.parametrize(
    ("answers", "first"),
    [
        (["1,000.0", "1000", "10^3"], [0, 0, 0]),
        ([" New  York", "new york.", "York"], [0, 0, 2]),
        (["\\frac12", "2", "\\frac{1}{2}", "0.5", "50\\%", "2.0"], [0, 1, 0, 0, 0, 1]),
        (["x=3", "3", "x = 3", "y=3"], [0, 0, 0, 3]),
        (["\\sqrt{8}", "2\\sqrt2", "2.83"], [0, 0, 2]),
        (["(1,2)", "(1, 2)", "(2,1)"], [0, 0, 2]),
        (["\\sin(1)", "\\cos(1)", "\\sin(1)"], [0, 1, 0]),
        ([], []),
    ],
)
def test_answers_of_equal_value_are_one_vote(answers: list[str], first: list[int]) -> None:
    assert groups_of_equals(answers) == first


# --- Hostile input


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"0123456789,.-+$%/ \\{}()[]^_=<>&|!#\nxi", "\\frac", "\\text{", "\\sqrt", "\\pm", "\\cup",
    "\\begin{pmatrix}", "\\end{pmatrix}", " or ", "\\pi", "\\infty", "\\in", "<answer>", "</answer>", "\\boxed{", "####"])))  # fmt: skip
def test_no_text_raises(parts: list[str]) -> None:
    text = "".join(parts)
    assert final_answer(text) is None or isinstance(final_answer(text), str)
    if normal(text):
        assert equal(text, text)
    assert decide(text, "7").status in ("correct", "wrong", "no_answer", "needs_symbolic")
    assert decide("7", text).status in ("correct", "wrong", "no_answer", "needs_symbolic")


@pytest.mark.parametrize(
    "piece",
    ["<answer>", "</answer>", "</think>", "\\boxed{", "{", "}", "#", "\n", "1", "1,", "1,000,", ",111", "1/", "-", "$", "%",
     ".", " ", "\\", "a ", "\\text{", "x=", "\\frac", "^", "("],
)  # fmt: skip
def test_a_megabyte_of_anything_is_judged(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert decide(text, "5").value == 0.0
    assert decide(f"{text}<answer>5</answer>", "5").value == 1.0
    assert decide(f"<answer>{text}</answer>", "5").value == 0.0
