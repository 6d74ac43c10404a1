"""What a program printed beside what its test expects."""

import time

import pytest

from rewards.code.output import same_output
from rewards.code.tasks import read_tolerance
from rewards.sandbox.types import Tolerance


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        # Lines and blanks
        ("1\n2\n", "1\n2\n", True),
        ("1\n2", "1\n2\n", True),
        ("1 \n2\t\r\n\n\n", "1\n2", True),
        ("", "", True),
        ("\n\n", "", True),
        ("1  2", "1 2", True),
        ("1\t2", "1 2", True),
        (" 1 2", "1 2", True),
        ("\n1", "1", True),
        ("1\n\n2", "1\n2", True),
        ("12", "1 2", False),
        ("1 2", "12", False),
        ("1\n2", "1 2", False),
        ("1 2", "1\n2", False),
        ("1", "1\n2", False),
        ("1\n2", "1", False),
        ("2\n1", "1\n2", False),
        ("", "0", False),
        ("0", "", False),
        ("yes", "YES", False),
        # Numbers with a fraction
        ("0.5", "0.500000000", True),
        ("0.30000000000000004", "0.3", True),
        ("0.333333", "0.3333333333333333", True),
        ("0.3334", "0.3333333333333333", False),
        ("-0.5", "0.5", False),
        ("1e-3", "0.001", True),
        (".5", "0.5", True),
        ("3", "3.0000", True),
        ("1.25e6", "1250000.0", True),
        ("0", "0.000001", False),
        ("nan", "0.5", False),
        ("inf", "1e9999", False),
        ("1e9999", "1e-9999", False),
        # Whole numbers
        ("1.0", "1", True),
        ("2.9999999999999996", "3", True),
        ("2.999", "3", False),
        ("+3", "3", True),
        ("-0", "0", True),
        ("1000000008", "1000000007", False),
        ("1000000008.0", "1000000007", False),
        ("1e6", "1000000", True),
        ("007", "7", False),
        ("11", "0011", False),
        ("9" * 2000, "9" * 1999 + "8", False),
        # Numbers between other characters
        ("[0.30000000000000004, 0.6]", "[0.3, 0.6]", True),
        ("Case #1: 0.1999999999", "Case #1: 0.2", True),
        ("Case #2: 0.2", "Case #1: 0.2", False),
        ("12.50%", "12.5%", True),
        ("(1.0,2)", "(1,2)", True),
        ("v1.10", "v1.1", False),
        ("1.10.0", "1.1.0", False),
        ("x1", "x1.0", False),
        ("0.1 0.2", "0.1", False),
    ],
)
def test_outputs_compare_by_lines_tokens_and_numbers(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed.encode(), expected.encode(), Tolerance()) is same


@pytest.mark.parametrize(
    ("tolerance", "printed", "expected", "same"),
    [
        (0, "0.30000000000000004", "0.3", False),
        (0, "0.30", "0.3", True),
        (1e-9, "0.333333", "0.3333333333333333", False),
        (1e-3, "0.3334", "0.3333333333333333", True),
        (1e-3, "0.0005", "0.0", True),
        (1e-3, "3.0005", "3", True),
        (1e-3, "1000500.0", "1000000.0", True),
        (1e-3, "1000500.0", "1000000", False),
        (1e-3, "4", "3", False),
    ],
)
def test_a_tolerance_is_absolute_or_relative(tolerance: float, printed: str, expected: str, same: bool) -> None:
    assert same_output(printed.encode(), expected.encode(), read_tolerance(tolerance)) is same


@pytest.mark.parametrize("piece", [b"1", b"1 ", b"1.", b"1e", b"-", b"0.1,", b"(", b"\n", b"9" * 999 + b"e9999 "])
def test_comparing_is_linear(piece: bytes) -> None:
    text = piece * (500_000 // len(piece))
    began = time.process_time()
    assert not same_output(text + b"1", text + b"2", Tolerance())
    assert time.process_time() - began < 3
