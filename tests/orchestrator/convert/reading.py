"""A file of another trainer as a recipe, read back as a run would read it."""

import tomllib
from pathlib import Path
from typing import Any

from orchestrator.config.load import parse_recipe
from orchestrator.config.recipe import Stage
from orchestrator.convert.forms import convert_text


class Converted:
    """What became of a text."""

    def __init__(self, text: str, *, file: str = "run.sh", **settings: Any) -> None:
        self.draft = convert_text(file, text, **settings)
        self.toml = self.draft.toml("made for a test")
        self.raw = tomllib.loads(self.toml)
        self.raw["model"]["path"] = self.raw["model"]["path"] or "."
        for source in self.raw["data"]["sources"].values():
            source["path"] = source["path"] or "."
        # Raises where a key is none of ours or a value is refused.
        (self.stage,) = parse_recipe(self.raw).stages
        assert isinstance(self.stage, Stage)

    def get(self, key: str) -> Any:
        """The value that a key has in the run; `written` says whether it is in the file."""
        value: Any = self.stage
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value

    def written(self, key: str) -> bool:
        value: Any = self.raw
        for part in key.split("."):
            if part not in value:
                return False
            value = value[part]
        return True

    def comment(self, name: str) -> str:
        """The one comment line about a setting of the source."""
        lines = [
            line
            for line in self.toml.splitlines()
            if line.startswith(f"#   {name} = ") or line.startswith(f"#   {name} (")
        ]
        assert len(lines) == 1, (name, lines)
        return lines[0]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(completions of a batch, group size, completions of an optimizer step, optimizer steps)."""
        stage = self.stage
        batch = stage.loop.groups_per_step * stage.rollout.group_size
        assert batch % stage.learner.mini_batches == 0
        return (
            batch,
            stage.rollout.group_size,
            batch // stage.learner.mini_batches,
            stage.loop.steps * stage.learner.mini_batches,
        )


def rows_file(folder: Path, rows: int, name: str = "rows.jsonl") -> Path:
    """A file of so many rows."""
    path = folder / name
    path.write_text('{"prompt": "1+1", "answer": "2"}\n' * rows, encoding="utf-8")
    return path
