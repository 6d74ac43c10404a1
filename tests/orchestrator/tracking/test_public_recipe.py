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
    own = {"name": "a.py:f", "api_key": "k1", "token": "k2", "password": "k3", "max_tokens": 5, "nested": {"secret": "k4"}}
    sections = {"rubrics": {"default": {"judge": function, "mine": own}}}
    public = public_recipe(recipe(cluster={"env": {"HF_TOKEN": "k5"}}, rewards=sections, rollout={"max_tokens": 77}))
    stage = public["stages"][0]
    rubric = stage["rewards"]["rubrics"]["default"]
    assert public["cluster"]["env"] == {"HF_TOKEN": HIDDEN}
    assert stage["rollout"]["max_tokens"] == 77
    assert rubric["judge"]["base_url"] == "https://judge/v1"
    assert rubric["judge"]["api_key_env"] == "JUDGE_KEY"
    assert rubric["mine"]["max_tokens"] == 5
    assert not any(f"k{number}" in str(public) for number in range(1, 6))
