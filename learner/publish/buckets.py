"""Parameters bucket by bucket, for whoever carries them away: a publish or an export.

Under ZeRO-3 every rank takes part in gathering a bucket. The next bucket is gathered before the last reader of one has to be
done with it, so a rank never holds more than two.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

from torch import Tensor

Named = list[tuple[str, Any]]
"""Pairs of (name, parameter)."""
T = TypeVar("T")


def buckets(parameters: Iterable[tuple[str, Any]], limit: int) -> Iterator[Named]:
    """Parameters in their order, in runs of at most `limit` bytes; a larger parameter makes a run of its own."""
    bucket: Named = []
    size = 0
    for name, parameter in parameters:
        count = num_bytes(parameter)
        if bucket and size + count > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, parameter))
        size += count
    if bucket:
        yield bucket


def num_bytes(parameter: Any) -> int:
    """Bytes of the whole parameter. Under ZeRO-3 it is empty outside a gather; `ds_numel` is its true size."""
    return int(getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size())


def carry(
    parameters: Iterable[tuple[str, Any]], limit: int, sharded: bool, take: Callable[[int, Named], T] | None
) -> list[T]:
    """Call `take(index, bucket)` for every bucket, in a thread, while the next is being gathered. Collective.

    Args:
        take: None on a rank that only helps to gather.
    """
    taken: list[T] = []
    with ThreadPoolExecutor(1, thread_name_prefix="carry") as thread, ExitStack() as open_buckets:
        previous: tuple[Future[T] | None, ExitStack] | None = None

        def finish(bucket: tuple[Future[T] | None, ExitStack]) -> None:
            with bucket[1]:
                if bucket[0] is not None:
                    taken.append(bucket[0].result())

        for index, bucket in enumerate(buckets(parameters, limit)):
            held = open_buckets.enter_context(ExitStack())
            held.enter_context(gather([parameter for _, parameter in bucket], sharded))
            if previous:
                finish(previous)
            previous = (thread.submit(take, index, bucket) if take else None, held)
        if previous:
            finish(previous)
    return taken


def stream(parameters: Iterable[tuple[str, Any]], limit: int, sharded: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors one by one, the bucket after theirs gathered already. Collective; a tensor is whole during its turn.

    A gather of several parameters waits for all that is queued on the GPU (DeepSpeed synchronizes it before it hands them
    out), so it runs beside nothing: a publish costs one such wait a bucket, of which 15 GB make sixty.
    """
    with ExitStack() as open_buckets:
        previous: tuple[Named, ExitStack] | None = None

        def turns(bucket: Named, held: ExitStack) -> Iterator[tuple[str, Tensor]]:
            with held:
                for name, parameter in bucket:
                    yield name, parameter.detach()

        for bucket in buckets(parameters, limit):
            held = open_buckets.enter_context(ExitStack())
            held.enter_context(gather([parameter for _, parameter in bucket], sharded))
            if previous:
                yield from turns(*previous)
            previous = (bucket, held)
        if previous:
            yield from turns(*previous)


def gather(parameters: list[Any], sharded: bool) -> Any:
    """Parameters that are whole, and to be read only, while the block is open."""
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)
