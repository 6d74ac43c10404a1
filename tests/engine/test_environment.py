"""`cluster.env` reaches every actor, below what an actor is given itself."""

import os

import pytest
import ray


class Seeing:
    def variable(self, name: str) -> str | None:
        return os.environ.get(name)


@pytest.mark.usefixtures("cluster")
def test_the_clusters_environment_is_every_actors() -> None:
    seeing = ray.remote(num_cpus=0)(Seeing)
    plain = seeing.remote()
    own = seeing.options(runtime_env={"env_vars": {"RAYZERO_OWN": "2"}}).remote()
    asked = [actor.variable.remote(name) for actor in (plain, own) for name in ("RAYZERO_SEEN", "RAYZERO_OWN")]
    assert ray.get(asked) == ["everywhere", "1", "everywhere", "2"]
