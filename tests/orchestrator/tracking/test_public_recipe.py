"""What of a recipe trackers see."""

from orchestrator.tracking.public_recipe import HIDDEN, public_recipe
from tests.orchestrator.factories import recipe


def test_secrets_stay_and_settings_go() -> None:
    function = {
        "name": "llm_judge",
        "base_url": "https://me:pw@judge/v1",
        "model": "m",
        "api_key_env": "JUDGE_KEY",
    }
    own = {
        "name": "a.py:f",
        "api_key": "geheim-1",
        "token": "geheim-2",
        "password": "geheim-3",
        "max_tokens": 5,
        "auth": {"list": ["geheim-4"]},
    }
    sections = {"rubrics": {"default": {"judge": function, "mine": own}}}
    public = public_recipe(
        recipe(cluster={"env": {"HF_TOKEN": "geheim-5"}}, rewards=sections, rollout={"max_tokens": 77})
    )
    stage = public["stages"][0]
    rubric = stage["rewards"]["rubrics"]["default"]
    assert public["cluster"]["env"] == {"HF_TOKEN": HIDDEN}
    assert stage["rollout"]["max_tokens"] == 77
    assert rubric["judge"]["base_url"] == "https://judge/v1"
    assert rubric["judge"]["api_key_env"] == "JUDGE_KEY"
    assert rubric["mine"]["max_tokens"] == 5
    assert "geheim" not in str(public)
