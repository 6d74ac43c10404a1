"""Wall time of phases that overlap: how long at least one of a kind was going on."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class BusyClock:
    """Counts seconds during which at least one `running()` block is open. One event loop, any number of tasks."""

    def __init__(self) -> None:
        self._open = 0
        self._since = 0.0
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._open == 0:
            self._since = time.perf_counter()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self._open == 0:
                self._seconds += time.perf_counter() - self._since

    @property
    def is_open(self) -> bool:
        """Whether a block is open now."""
        return self._open > 0

    @property
    def seconds(self) -> float:
        """Seconds so far, the stretch now running included."""
        return self._seconds + (time.perf_counter() - self._since if self._open else 0.0)


class PhaseClocks:
    """The phases of one step, read and restarted with every step.

    `produce` is the union of generating and scoring. A step is all that is neither a wait for a start nor an evaluation;
    idle is what is left of it when neither the producer nor the learner nor a publish was at work: the control plane,
    loading data, and waiting.
    """

    def __init__(self, start: BusyClock | None = None) -> None:
        """`start`: runs while somebody waits for a service or a model that is not there yet."""
        self.start = start or BusyClock()
        self.generate, self.score, self.produce = BusyClock(), BusyClock(), BusyClock()
        self.train, self.publish = BusyClock(), BusyClock()
        self.evaluate = BusyClock()
        self.save = BusyClock()
        """Runs while checkpoints and exports are written."""
        self.wait = BusyClock()
        """Runs while the learner stands idle until a batch is whole; generation and scoring go on meanwhile."""
        self._overlap = 0.0
        self._began = time.perf_counter()
        self._last = self._read()

    @contextmanager
    def beside(self, phase: BusyClock) -> Iterator[None]:
        """A phase of the learner or of an evaluation; generation going on meanwhile counts as overlap."""
        before = self.produce.seconds
        with phase.running():
            yield
        self._overlap += self.produce.seconds - before

    def training(self) -> AbstractContextManager[None]:
        """The learner's phase."""
        return self.beside(self.train)

    def step(self) -> dict[str, float]:
        """Seconds by phase since the last call, as metrics."""
        now = self._read()
        spent = {name: now[name] - self._last[name] for name in now}
        self._last = now
        spent["step"] -= spent["start"] + spent["evaluate"]
        busy = spent["train"] + spent["publish"] + spent["save"] + spent["produce"] - spent["overlap"]
        spent["idle"] = max(0.0, spent["step"] - busy)
        del spent["produce"]
        return {f"time/{name}_s": seconds for name, seconds in spent.items()}

    def going_on(self) -> dict[str, float]:
        """Phase that is going on now → its seconds since the last call of `step`."""
        now = self._read()
        names = ("start", "generate", "score", "train", "publish", "save", "evaluate")
        return {name: now[name] - self._last[name] for name in names if getattr(self, name).is_open}

    @property
    def step_seconds(self) -> float:
        """Seconds since the last call of `step`."""
        return time.perf_counter() - self._began - self._last["step"]

    def _read(self) -> dict[str, float]:
        return {
            "start": self.start.seconds,
            "evaluate": self.evaluate.seconds,
            "generate": self.generate.seconds,
            "score": self.score.seconds,
            "produce": self.produce.seconds,
            "train": self.train.seconds,
            "publish": self.publish.seconds,
            "save": self.save.seconds,
            "wait": self.wait.seconds,
            "overlap": self._overlap,
            "step": time.perf_counter() - self._began,
        }
