"""The reader of our source against a small library: what it finds, and what it leaves alone."""

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest

from tests.contracts.library import Library
from tests.contracts.usage import Reader

LIBRARY = {
    "lib/__init__.py": """
        from .engine import Engine, Options as Settings
        from . import deep

        def __getattr__(name):
            if name == "made_late":
                return 1
    """,
    "lib/deep.py": """
        @overload
        def copy(a: int) -> int: ...
        def copy(a, /, b, *rest, c, d=1, **more): ...
        def plain(a, b=2): ...
    """,
    "lib/engine.py": """
        from abc import ABC, abstractmethod
        from dataclasses import dataclass, field
        from functools import cached_property
        from typing import ClassVar, Literal, NotRequired, TypedDict

        Mode = Literal["keep", "abort"]

        @dataclass
        class Base:
            size: int
            names: list[str] = field(default_factory=list)
            kind: ClassVar[str] = "x"

        @dataclass
        class Options(Base):
            mode: Mode | None = None
            device: Literal["cpu", "cuda"] | str = "cpu"
            late: int = field(default=0, kw_only=True)

        class Words(TypedDict):
            text: str
            salt: NotRequired[str]

        class Part:
            index: int
            logprobs: list[float] | None

        class Output:
            def __init__(self):
                self.parts: list[Part] = []

        class Source(ABC):
            @property
            @abstractmethod
            def metadata(self) -> list[str]: ...
            @abstractmethod
            def start(self, info: dict) -> None: ...
            def stop(self) -> None: ...

        class Engine:
            limit = 3

            @classmethod
            def made(cls, options: Options) -> "Engine": ...
            @staticmethod
            def version() -> str: ...
            async def sleep(self, level: int = 1, mode: Mode = "abort") -> None: ...
            async def generate(self, prompt: str, *, salt: str | None = None) -> AsyncGenerator[Output, None]: ...
            @property
            def options(self) -> Options: ...
            def connect(self, source: "Source | None" = None) -> None: ...
    """,
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("site")
    for name, text in LIBRARY.items():
        path = folder / Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text))
    return Library("lib", folder)


def problems(library: Library, source: str) -> list[str]:
    reader = Reader(library, "ours.py", {"engine": library.find("lib.engine:Engine")})
    reader.read(ast.parse(source))
    return reader.problems


SOUND = """
import lib
import lib.deep
from lib import Engine, Settings, deep, made_late
from lib.engine import Source, Words

def options(big):
    return {"size": 1} if big else {"size": 2, "late": 3}

async def main(engine, anything):
    Settings(1, ["a"], "keep", late=3)
    Settings(size=1, mode=None, device="tpu")
    Settings(**options(True), mode="abort")
    Settings(**anything)
    for found in anything:
        Settings(size=1, **found)
    Settings(size=1, **{key: 1 for key in anything})
    Words(text="a", salt="b")
    made = Engine.made(Settings(1))
    await made.sleep(2, mode="keep")
    made.options.mode.anything
    Engine.version(), engine.version(), Engine.limit
    lib.deep.copy(1, 2, 3, c=4, e=5)
    deep.plain(*anything)
    async for output in engine.generate("a", salt="b"):
        for part in output.parts:
            part.index, part.logprobs
    anything.nobody.knows(1)

class Mine(Source):
    metadata = ()

    def start(self, info, more=None):
        self.stop()
        super().stop()

class Else:
    @property
    def metadata(self): ...
    def start(self, info): ...
    def stop(self): ...

def connect(engine):
    engine.connect(Else())
"""


def test_sound_calls_pass(library: Library) -> None:
    assert problems(library, SOUND) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("from lib import gone", "lib.gone is not there"),
        ("import lib.gone", "lib.gone is not there"),
        ("lib.gone", "lib has no gone"),
        ("lib.deep.copy(1, c=2)", "missing a required argument: 'b'"),
        ("lib.deep.copy(a=1, b=2, c=3)", "positional only|missing a required"),
        ("lib.deep.plain(1, 2, 3)", "too many positional arguments"),
        ("Settings(size=1, sizes=2)", "unexpected keyword argument 'sizes'"),
        ("Settings(1, kind='y')", "unexpected keyword argument 'kind'"),
        ("Settings()", "missing a required argument: 'size'"),
        ("Settings(1, mode='stop')", r"mode=…\) is one of \['None', 'abort', 'keep'\], not 'stop'"),
        ("Settings(1, mode='stop' if x else 'keep')", "not 'stop'"),
        ("Settings(**{'sizes': 1})", "unexpected keyword argument 'sizes'"),
        ("extra = {'sizes': 1}; Settings(size=1, **extra)", "unexpected keyword argument 'sizes'"),
        ("extra = {}; extra['sizes'] = 1; Settings(size=1, **extra)", "unexpected keyword argument 'sizes'"),
        ("extra = {}; extra = {**extra, 'sizes': 1}; Settings(size=1, **extra)", "unexpected keyword argument 'sizes'"),
        ("extra = {}; extra |= {'sizes': 1}; Settings(size=1, **extra)", "unexpected keyword argument 'sizes'"),
        ("Settings(**wrong())", "unexpected keyword argument 'sizes'"),
        ("Words(salt='a')", "missing a required argument: 'text'"),
        ("Engine.made()", "missing a required argument: 'options'"),
        ("Engine.made(Settings(1)).wake()", "Engine has no wake"),
        ("engine.sleep(levels=2)", "unexpected keyword argument 'levels'"),
        ("engine.sleep(1, 'stop')", "not 'stop'"),
        ("engine.options.modes", "Options has no modes"),
        ("type(engine).gone = 1", "Engine has no gone"),
        ("[part.indices for output in engine.generate('a') for part in output.parts]", "Part has no indices"),
        ("engine.connect(Else())", "Else stands for lib.engine.Source and has no stop"),
        ("class A(Source):\n    def start(self, info): ...", "A does not define metadata of lib.engine.Source"),
        ("class A(Source):\n    metadata = 1\n    def start(self): ...", "too many positional"),
        ("class A(Source):\n    metadata = 1\n    def start(self, that): ...", "missing a required argument: 'that'"),
        (
            "class A(Source):\n    metadata = 1\n    def start(self, info, more): ...",
            "missing a required argument: 'more'",
        ),
        ("class A(Source):\n    def metadata(self): ...\n    def start(self, info): ...", "a method on one side"),
        ("class A(Source):\n    metadata = 1\n    async def start(self, info): ...", "async on one side"),
        ("class A(Source):\n    metadata = 1\n    def start(self, info): self.gone", "uses self.gone, which"),
        ("class A(Source):\n    metadata = 1\n    def start(self, info): super().stop(1)", "too many positional"),
    ],
)
def test_a_call_that_does_not_fit_is_named(library: Library, line: str, fault: str) -> None:
    preamble = (
        "import lib\nimport lib.deep\nfrom lib import Engine, Settings\nfrom lib.engine import Source, Words\n"
        "def wrong():\n    return {'sizes': 1}\n"
        "class Else:\n    @property\n    def metadata(self): ...\n    def start(self, info): ...\n"
    )
    found = problems(library, preamble + line)
    assert len(found) == 1, found
    assert found[0].startswith("ours.py:")
    assert re.search(fault, found[0]), found[0]
