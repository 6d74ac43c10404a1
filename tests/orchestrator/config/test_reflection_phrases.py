"""`eval.reflection`: phrases that a recipe looks for in thoughts."""

from typing import Any

import pytest

from orchestrator.config.sections.eval import EvalSection
from rewards.text.reflection import PHRASES
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


def section(lists: dict[str, Any]) -> EvalSection:
    return recipe(eval={"reflection": lists}).stages[0].eval


def test_a_list_takes_the_place_of_that_of_its_language() -> None:
    phrases = section({"en": ["aha", "recount*"], "zh": [], "nl": ["wacht,"]}).reflection_phrases
    assert {"aha", "recount*", "wacht,", *PHRASES["de"]} <= set(phrases)
    assert not {"wait,", *PHRASES["zh"]} & set(phrases)
    assert section({}).reflection_phrases == tuple(each for lists in PHRASES.values() for each in lists)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"english": ["wait"]}, "'english' is no language; give an ISO 639-1 code such as en"),
        ({"en": ["re*check"]}, "'re*check' is no phrase"),
        ({"en": ["*"]}, "'*' is no phrase"),
        ({"en": ["  "]}, "'  ' is no phrase"),
        ({"en": "wait"}, "should be a list"),
    ],
)
def test_what_is_no_list_of_phrases(lists: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        section(lists)
    assert message in str(caught.value)
