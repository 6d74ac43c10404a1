"""A reward model: a Hugging Face sequence-classification model with one output, in batches, on a CPU or a GPU.

How it reads a pair is in rewards/models/pair_encoding.py. Nothing is ever cut: a pair that is too long for the model raises
ServiceError, since a score of half a text would be a score of another text.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from rewards.models.pair_encoding import Pair, PairEncoder, PairTokens, Scope, pair_of
from rollout.errors import InputError, ServiceError

FINEST = 1e-5
"""Difference of two logits that float32 may make of the batch alone."""
PROBE_WORDS = (1, 2, 5, 10, 20, 40, 80, 160)
"""Lengths of the responses that the resolution is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelSpec:
    """Settings of a reward model, as the recipe has them."""

    path: str = field(metadata={"names": "model"})
    """Folder or hub id of the model with its tokenizer."""
    scope: Scope = "answer"
    """Part of the response that is scored: the final answer alone, or the whole with its thought."""
    device: str = "auto"
    """Device of the model: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, …"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_tokens: int = 0
    """Longest pair with its template; 0: as many as the model has positions for."""
    batch_tokens: int = 16_384
    """Padded tokens of one forward pass; a longer pair goes alone."""
    sigmoid: bool = False
    """Whether `value` is the logit's sigmoid, in (0, 1), in place of the logit."""
    trust_remote_code: bool = False
    """Whether code in the model's folder may be run."""


class RewardModel:
    """The model and its tokenizer. Deterministic; the score of a pair does not depend on its batch, up to rounding."""

    def __init__(self, spec: RewardModelSpec) -> None:
        """Raises InputError when the folder holds no such model, or a template that shows no answer."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from rollout.storage.folders import local_folder

        self.spec = spec
        remote = {"trust_remote_code": spec.trust_remote_code}
        try:
            folder = local_folder(spec.path)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **remote)
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=getattr(torch, spec.dtype), output_loading_info=True, **remote
            )
        except (OSError, ValueError, KeyError) as problem:
            reason = " ".join(str(problem).split())[:300]
            raise InputError(f"reward model {spec.path}: does not load: {reason}") from problem
        self._model: Any = loaded[0]
        missing = sorted(loaded[1]["missing_keys"])
        if missing:
            # They would be filled with random numbers, and so would the rewards.
            raise InputError(
                f"reward model {spec.path}: is no reward model: it has no weights {', '.join(missing[:3])}"
            )
        if self._model.config.num_labels != 1:
            labels = self._model.config.num_labels
            raise InputError(f"reward model {spec.path}: has {labels} outputs; a reward model has one")
        device = ("cuda" if torch.cuda.is_available() else "cpu") if spec.device == "auto" else spec.device
        self._model.to(device).eval()
        self._device = device
        self._config = self._model.config.get_text_config()
        self.max_tokens = _longest(spec, self._config, self._tokenizer)
        self._encoder = PairEncoder(self._tokenizer, spec.path)

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The logit of each pair, in the order of the pairs. Not bounded; only differences mean something.

        Raises:
            ServiceError: a pair is too long, or the model returns what is not a number.
        """
        return self.score_encoded([self.encode(prompt, response) for prompt, response in pairs])

    def encode(self, prompt: str, response: str) -> PairTokens:
        """A pair in the model's chat template, or as the tokenizer joins two texts where it has none.

        Raises:
            ServiceError: it has more than `max_tokens` tokens, or none.
        """
        (tokens,) = self._encoder.encode([(prompt, response)])
        ids = tokens.ids
        if not ids:
            raise ServiceError(f"reward model {self.spec.path}: there is nothing to score in an empty pair")
        if len(ids) > self.max_tokens:
            raise ServiceError(
                f"reward model {self.spec.path}: {len(ids)} tokens of prompt and response are more than its "
                f"{self.max_tokens}; shorten the completions, or score the answer alone (scope = 'answer')"
            )
        return tokens

    def score_encoded(self, encoded: Sequence[PairTokens]) -> list[float]:
        """The logit of each pair that `encode` returned. Pairs of like length share a forward pass. Raises as `score` does."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
        scores = [0.0] * len(encoded)
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) + 1) * len(encoded[i].ids) > self.spec.batch_tokens:
                self._forward(encoded, batch, scores)
                batch = []
            batch.append(i)
        if batch:
            self._forward(encoded, batch, scores)
        return scores

    def measure_resolution(self) -> float:
        """Difference of two logits up to which they mean the same: a pair beside others of a batch comes out a little
        different. How much depends on the model and its number format, so it is measured: eight times the largest found.
        """
        words = [
            "So",
            "one",
            "and",
            "two",
            "are",
            "three,",
            "which",
            "is",
            "3",
            "=",
            "1",
            "+",
            "2;",
            "then",
            "3",
            "more",
            "make",
            "6.",
        ]
        texts = [" ".join((words * count)[:count]) for count in PROBE_WORDS]
        probes = self._encoder.encode([("How much is 1 + 2 + 3?", text) for text in texts])
        probes = [probe for probe in probes if len(probe.ids) <= self.max_tokens]
        beside = self.score_encoded(probes)
        alone = [self.score_encoded([probe])[0] for probe in probes]
        return max([FINEST, *(8 * abs(a - b) for a, b in zip(alone, beside, strict=True))])

    def _forward(self, encoded: Sequence[PairTokens], batch: list[int], scores: list[float]) -> None:
        """Score the pairs of a batch (their indices) into `scores`."""
        import torch

        length = max(len(encoded[i].ids) for i in batch)

        def tensor(values: list[list[int]], padding: int) -> Any:
            return torch.tensor(
                [[*tokens, *[padding] * (length - len(tokens))] for tokens in values], device=self._device
            )

        ids = [encoded[i].ids for i in batch]
        pad = self._padding({token for tokens in ids for token in tokens})
        inputs = {"input_ids": tensor(ids, pad), "attention_mask": tensor([[1] * len(tokens) for tokens in ids], 0)}
        if encoded[batch[0]].types:
            inputs["token_type_ids"] = tensor([encoded[i].types for i in batch], 0)
        # A decoder takes the output at the last token that is not padding, which it knows by its id alone.
        self._config.pad_token_id = pad
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        for i, score in zip(batch, logits.float().flatten().tolist(), strict=True):
            if not math.isfinite(score):
                raise ServiceError(f"reward model {self.spec.path}: returned {score}")
            scores[i] = score

    def _padding(self, used: set[int]) -> int:
        """The tokenizer's own padding, or where that is a token of the batch (an end-of-turn token, say) one that is none."""
        own = self._tokenizer.pad_token_id
        if own is not None and own not in used:
            return int(own)
        return next(token for token in range(self._config.vocab_size) if token not in used)


class RewardModelServer:
    """A reward model for many callers at once: requests that arrive while it computes share the next batch.

    Plain Python; the service wraps it in a Ray actor. All methods run in one event loop.
    """

    def __init__(self, spec: RewardModelSpec) -> None:
        """Raises InputError as RewardModel does."""
        self.spec = spec
        self.model = RewardModel(spec)
        self._resolution = self.model.measure_resolution()
        self._waiting: list[tuple[PairTokens, asyncio.Future[float]]] = []
        self._since: float | None = None
        self._worker: asyncio.Task[None] | None = None
        # One thread each: a tokenizer is for one thread at a time, and must not wait for a forward pass.
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="reward-model-encode")
        self._computer = ThreadPoolExecutor(1, thread_name_prefix="reward-model-forward")

    async def score(self, prompt: str, completion: str, reference: str = "") -> dict[str, float]:
        """Score a completion; `reference` is not used. An empty answer is scored as an empty answer.

        Returns:
            `value`: the logit, or its sigmoid where the spec says so; `logit`; `resolution`: difference up to which two
            values mean the same, since a pair computed with others of a batch comes out a little different.

        Raises:
            ServiceError: the pair is too long, or the model failed.
        """
        pair = pair_of(prompt, completion, self.spec.scope)
        loop = asyncio.get_running_loop()
        # A pair that cannot be scored fails here, alone, and not in a batch with others.
        tokens = await loop.run_in_executor(self._encoder, self.model.encode, *pair)
        done: asyncio.Future[float] = loop.create_future()
        self._waiting.append((tokens, done))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        logit = await done
        resolution = self._resolution * max(1.0, abs(logit))
        if self.spec.sigmoid:
            return {"value": _sigmoid(logit), "logit": logit, "resolution": resolution / 4}  # its steepest slope
        return {"value": logit, "logit": logit, "resolution": resolution}

    async def stands_s(self) -> float:
        """Seconds for which it has been at one batch; 0: it is at none. It answers while it computes, too."""
        return time.monotonic() - self._since if self._since is not None else 0.0

    async def close(self) -> None:
        self._encoder.shutdown(wait=False, cancel_futures=True)
        self._computer.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            encoded = [tokens for tokens, _ in batch]
            # The one boundary where a forward pass may fail: everybody in the batch is told, nobody is scored 0.
            self._since = time.monotonic()
            try:
                scores = await loop.run_in_executor(self._computer, self.model.score_encoded, encoded)
            except Exception as problem:  # noqa: BLE001
                failure = problem if isinstance(problem, ServiceError) else self._failure(problem)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(failure)
                continue
            finally:
                self._since = None
            for (_, done), score in zip(batch, scores, strict=True):
                if not done.done():  # its caller may have given up
                    done.set_result(score)

    def _failure(self, problem: Exception) -> ServiceError:
        return ServiceError(f"reward model {self.spec.path}: {type(problem).__name__}: {problem}")


def _longest(spec: RewardModelSpec, config: Any, tokenizer: Any) -> int:
    known = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    # A tokenizer that knows no limit says a number with thirty digits.
    limits = [int(limit) for limit in known if limit and limit < 1e9]
    if spec.max_tokens and limits and spec.max_tokens > min(limits):
        raise InputError(f"reward model {spec.path}: max_tokens = {spec.max_tokens} is more than its {min(limits)}")
    if not (spec.max_tokens or limits):
        raise InputError(f"reward model {spec.path}: does not say how many tokens it can read; set max_tokens")
    return spec.max_tokens or min(limits)


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else 1.0 - 1.0 / (1.0 + math.exp(logit))
