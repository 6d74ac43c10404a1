"""The rules of the house (CONTRIBUTING.md, "Rules"). Each test names the offender and the rule that it breaks.

Everything is read from the source, nothing is imported, so an import inside a function or under TYPE_CHECKING counts as any other.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HALLS = ("rollout", "rewards", "learner", "orchestrator")
"""Along the data: each may import those before it."""
ROOMS = (
    ("config", "clock", "display", "buffer"),
    ("plan", "data", "sampling", "convert"),
    ("checks", "cluster", "run"),
    ("results",),
    ("evaluation", "report", "export", "tracking"),
    ("watch",),
    ("loop",),
    ("stages",),
    ("pipeline", "replay"),
    ("commands", "cli", "__main__"),
)
"""Of the orchestrator, from the ground up: each may import those of its own floor and below."""
HOLDERS = {
    "ray": r"(rollout|rewards|learner)\.service|rewards\.(placing|scorer_actors)|rollout\.(actors|engines|relays|replica)|orchestrator\.cluster\..+",
    "vllm": r"rollout\.engine|rollout\.weights\..+|learner\.publish\.gpu",
    "deepspeed": r"learner\..+",
    "wandb": r"orchestrator\.tracking\.wandb_run",
    "mlflow": r"orchestrator\.tracking\.mlflow_run",
    "trackio": r"orchestrator\.tracking\.trackio_run",
}
"""Library → modules that may import it."""
LIGHT = r"orchestrator\.(config|plan|checks)\..+"
"""Modules that a mistake in a recipe passes through: they answer in well under a second."""
HEAVY = ("ray", "vllm", "deepspeed", "torch", "transformers")
LONGEST_FUNCTION = 60


class Import:
    """One import statement's target."""

    def __init__(self, module: str, line: int, at_start: bool) -> None:
        self.module, self.line = module, line
        self.at_start = at_start
        """Whether it happens when the importing module is imported."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name → file of every module of the four halls."""
    found = {}
    for path in sorted(file for hall in HALLS for file in (ROOT / hall).rglob("*.py")):
        found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """What a module imports, wherever in it."""
    return tuple(_imports(tree(modules()[name]), at_start=True))


def _imports(node: ast.AST, *, at_start: bool) -> Iterator[Import]:
    for child in _statements(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_start) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: relative import"
            package = child.module or ""
            for alias in child.names:
                inside = f"{package}.{alias.name}"
                yield Import(inside if inside in modules() else package, child.lineno, at_start)
        inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _imports(child, at_start=at_start and not inner and not checking)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What stands right under a node; imports are statements, so expressions are left out."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        yield from getattr(node, field, ())


def own_imports(name: str) -> list[Import]:
    return [each for each in imports(name) if each.module in modules()]


def place(name: str, line: int) -> str:
    return f"{modules()[name].relative_to(ROOT)}:{line}"


def floor(name: str) -> tuple[int, int]:
    """(hall, floor of the room in it) of a module: may import what is not above it."""
    hall, *rooms = name.split(".")
    if hall != "orchestrator" or not rooms:
        return HALLS.index(hall), 0
    for number, floors in enumerate(ROOMS):
        if rooms[0] in floors:
            return HALLS.index(hall), number
    raise AssertionError(f"orchestrator/{rooms[0]} is on no floor: give it one in ROOMS of {__file__}")


def test_imports_point_along_the_data() -> None:
    offenders = [
        f"{place(name, each.line)} imports {each.module}"
        for name in modules()
        for each in own_imports(name)
        if floor(each.module) > floor(name)
    ]
    assert not offenders, (
        "no arrow runs back up (rollout ← rewards ← learner ← orchestrator, and ROOMS):\n" + "\n".join(offenders)
    )


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A circle in a graph; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(arrows.get(node, ())):
            if found := visit(target, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(arrows) if (found := visit(node, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_modules_import_each_other_in_no_circle() -> None:
    arrows = {name: {each.module for each in own_imports(name)} for name in modules()}
    assert not (found := circle(arrows)), f"no circle of imports: {' → '.join(found)}"


def test_rooms_of_one_floor_import_each_other_in_no_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for name in modules():
        room = ".".join(name.split(".")[:2])
        targets = {".".join(each.module.split(".")[:2]) for each in own_imports(name)}
        arrows.setdefault(room, set()).update(targets - {room})
    assert not (found := circle(arrows)), f"no circle of rooms: {' → '.join(found)}"


@pytest.mark.parametrize("library", HOLDERS)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    offenders = [
        place(name, each.line)
        for name in modules()
        for each in imports(name)
        if each.module.split(".")[0] == library and not re.fullmatch(HOLDERS[library], name)
    ]
    assert not offenders, f"{library} is imported in {HOLDERS[library]} only:\n" + "\n".join(offenders)


def test_what_reads_a_recipe_imports_nothing_heavy() -> None:
    """What a light module imports when it is imported, however far away."""
    offenders = []
    for name in filter(re.compile(LIGHT).fullmatch, modules()):
        seen, waiting = {name}, [(name, name)]
        while waiting:
            module, path = waiting.pop()
            for each in imports(module):
                if not each.at_start:
                    continue
                if each.module.split(".")[0] in HEAVY:
                    offenders.append(f"{path} → {each.module}")
                if each.module in modules() and each.module not in seen:
                    seen.add(each.module)
                    waiting.append((each.module, f"{path} → {each.module}"))
    assert not offenders, f"{LIGHT} import none of {', '.join(HEAVY)} at start:\n" + "\n".join(offenders)


def test_stages_hold_a_page_for_each_kind_and_nothing_else() -> None:
    (said,) = (
        node.value
        for module in modules()
        if module.startswith("orchestrator.config.")
        for node in tree(modules()[module]).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "StageKind"
    )
    kinds = {node.value for node in ast.walk(said) if isinstance(node, ast.Constant)}
    pages = {path.stem for path in (ROOT / "orchestrator" / "stages").glob("*.py")} - {"__init__"}
    assert pages == kinds, (
        "orchestrator/stages/ holds one page a kind of stage; what they share is in orchestrator/loop/"
    )


def test_a_package_says_what_it_is_and_imports_nothing() -> None:
    offenders = []
    for name, path in modules().items():
        if path.name != "__init__.py":
            continue
        body = tree(path).body
        text = ast.get_docstring(tree(path)) or ""
        if len(body) != 1 or not 1 <= len(text.splitlines()) <= 3:
            offenders.append(place(name, 1))
    assert not offenders, "an __init__.py is a docstring of one to three lines:\n" + "\n".join(offenders)


def test_every_folder_of_modules_is_a_package() -> None:
    offenders = {str(path.parent.relative_to(ROOT)) for path in modules().values()} - {
        str(path.parent.relative_to(ROOT)) for path in modules().values() if path.name == "__init__.py"
    }
    assert not offenders, f"folders without an __init__.py: {', '.join(sorted(offenders))}"


def test_functions_are_short() -> None:
    offenders = [
        f"{place(name, node.lineno)} {node.name}: {length} lines"
        for name, path in modules().items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION  # type: ignore[operator]
    ]
    assert not offenders, f"no function above {LONGEST_FUNCTION} lines:\n" + "\n".join(offenders)


DOTTED = re.compile(rf"(?<![\w./-])(?:{'|'.join(HALLS)})(?:\.[a-z_][a-z0-9_]*)+(?::\w+)?(?![\w./])")
PATH = re.compile(
    rf"(?<![\w./-])(?:{'|'.join(HALLS)}|tests|deploy)/(?:[\w/-]*/)?(?:[\w-]+\.(?:py|md|toml|sh|txt|css|js|j2)\b)?"
)


def strings(node: ast.AST) -> Iterator[ast.Constant]:
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child


@cache
def recipe_keys() -> frozenset[str]:
    """First two parts of every key of a recipe: `learner.lr` looks like a module and is none."""
    found = set()
    for name in modules():
        if not name.startswith("orchestrator.config.sections."):
            continue
        section = name.rsplit(".", 1)[1]
        for node in ast.walk(tree(modules()[name])):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(f"{section}.{node.target.id}")
    return frozenset(found)


@cache
def moved() -> frozenset[str]:
    """Old names of modules, which a recipe may still have: the keys of the table that tells their new ones."""
    (table,) = (
        node.value
        for node in tree(modules()["rewards.functions"]).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MOVED"
    )
    return frozenset(ast.literal_eval(table))


def names_a_module(dotted: str) -> bool:
    """`a.b.c` is a module, or a name defined in module `a.b` or in class `c` of it."""
    parts = dotted.replace(":", ".").split(".")
    for end in range(len(parts), 1, -1):
        path = modules().get(".".join(parts[:end]))
        if path is not None:
            rest = parts[end : end + 1]
            return path.name != "__init__.py" and bool(re.search(rf"\b{rest[0]}\b", path.read_text())) if rest else True
    return False


def test_modules_named_in_strings_exist() -> None:
    offenders = []
    for name, path in modules().items():
        for node in strings(tree(path)):
            for found in DOTTED.findall(node.value):
                is_key = any(key.startswith(".".join(found.split(".")[:2])) for key in recipe_keys())
                if not is_key and found not in moved() and not found.endswith(".json") and not names_a_module(found):
                    offenders.append(f"{place(name, node.lineno)}: {found}")
    assert not offenders, "a module that a string names exists:\n" + "\n".join(offenders)


def test_files_named_in_strings_and_comments_exist() -> None:
    offenders = []
    for path in modules().values():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for found in PATH.findall(line):
                if not (ROOT / found).exists():
                    offenders.append(f"{path.relative_to(ROOT)}:{number}: {found}")
    assert not offenders, "a file that is named exists:\n" + "\n".join(offenders)


def test_modules_named_in_the_project_file_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    entries = [
        *project["project"]["scripts"].values(),
        *(target for group in project["project"]["entry-points"].values() for target in group.values()),
    ]
    missing = [entry for entry in entries if not names_a_module(entry)]
    for package, patterns in project["tool"]["setuptools"]["package-data"].items():
        missing += [f"{package}: {pattern}" for pattern in patterns if not any((ROOT / package).glob(pattern))]
    for pattern in project["tool"]["ruff"]["lint"].get("per-file-ignores", {}):
        missing += [pattern] * (not any(ROOT.glob(pattern)))
    for override in project["tool"]["mypy"]["overrides"]:
        asked = [override["module"]] if isinstance(override["module"], str) else override["module"]
        ours = [pattern for pattern in asked if pattern.split(".")[0] in HALLS]
        missing += [pattern for pattern in ours if pattern.removesuffix(".*") not in modules()]
    assert not missing, f"pyproject.toml names what is not there: {', '.join(missing)}"


def test_a_docstring_names_its_noun() -> None:
    offenders = [
        f"{place(name, node.lineno)}: {node.value.splitlines()[0][:60]}"
        for name, path in modules().items()
        for node in strings(tree(path))
        if node.value.startswith("Of ")
    ]
    assert not offenders, (
        'a docstring is read alone: "Temperature of the samples", not "Of the samples":\n' + "\n".join(offenders)
    )
