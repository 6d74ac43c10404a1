"""What is written of texts that would act, or turn others around."""

import json
import math
import unicodedata

import pytest
from markupsafe import Markup

from orchestrator.report.escape import as_json, cut, harmless, split_tags

BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""The property Bidi_Control of Unicode (PropList.txt)."""


def test_what_a_browser_obeys_and_a_reader_does_not_see_is_written_out() -> None:
    assert harmless("a\u202eb") == "a\\u202eb"
    assert harmless("\x1b[31m\x00\x7f\x9b") == "\\x1b[31m\\x00\\x7f\\x9b"
    for sign in (*BIDI_CONTROLS, *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))):
        assert (harmless(sign) == sign) == (sign in "\n\t\r"), repr(sign)


@pytest.mark.parametrize(
    "text", ["a\n\tb\r\n", "👩\u200d🔬 é 漢字 שלום عربى", "&lt;b&gt; <b> ' \"", "\u2028", "\ud83d"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_only_strings_of_others_are_changed() -> None:
    assert harmless(Markup("<b>\x1b</b>")) == "<b>\x1b</b>"
    assert harmless(3) == 3
    assert harmless(None) is None


def test_data_for_the_script_come_back_as_they_are_and_end_no_element_and_no_attribute() -> None:
    data = {"</script><!-- '\"&\u2028": ["<img onerror='x'>", 1.5, None, True, ("\u2029",)]}
    text = as_json(data)
    assert not set("<>&'\u2028\u2029") & set(text)
    assert json.loads(text) == {"</script><!-- '\"&\u2028": ["<img onerror='x'>", 1.5, None, True, ["\u2029"]]}
    assert json.loads(as_json({"a\u202e": ["\u2066\x1b"]})) == {"a\\u202e": ["\\u2066\\x1b"]}


def test_json_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json([math.nan])


def test_tags_are_every_second_piece() -> None:
    pieces = split_tags("<think>a</think>\n<answer>b</answer> <b>")
    assert pieces[1::2] == ["<think>", "</think>", "<answer>", "</answer>"]
    assert "".join(pieces) == "<think>a</think>\n<answer>b</answer> <b>"


def test_the_end_of_a_long_text_is_kept() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    short = cut("a" * 3000 + "the end", 300)
    assert short.startswith("a" * 200 + "\n[… 2,707 characters left out …]\n")
    assert short.endswith("the end")


def test_the_list_of_bidi_controls_is_that_of_unicode() -> None:
    turning = {"LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    found = {chr(code) for code in range(0x11000) if unicodedata.bidirectional(chr(code)) in turning}
    assert found < set(BIDI_CONTROLS)
