"""The publishers between GPUs on a host without: handles as data, and the order of what they do on the device."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch.multiprocessing import reductions

from learner.publish.gpu import IpcPublisher, NcclPublisher
from rollout.weights import handles
from rollout.weights.digest import Digest
from rollout.weights.handles import export_tensor, open_tensor
from rollout.weights.manifest import DIGEST

PLACES = ("GPU-aa", "GPU-bb")


def as_on_a_gpu(tensor: torch.Tensor) -> tuple[Any, tuple[Any, ...]]:
    """What PyTorch makes of a CUDA tensor, a view or not, for another process: classes, a dtype, and bytes."""
    number = tensor.data_ptr().to_bytes(8, "little")
    return reductions.rebuild_cuda_tensor, (
        torch.Tensor, tensor.size(), tensor.stride(), tensor.storage_offset(), torch.storage.TypedStorage, tensor.dtype,
        0, b"handle" + number, 4096, 512, False, b"counter", 3, b"event", True,
    )  # fmt: skip


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A card that only notes what it is told."""
    told: list[str] = []
    monkeypatch.setattr(reductions, "reduce_tensor", as_on_a_gpu)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("learner.publish.gpu.gpu_id", lambda _: PLACES[0])
    return told


def weights() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).to(torch.bfloat16)
    model[0].weight.data = (
        torch.randn(4, 3).to(torch.bfloat16).t()
    )  # neither contiguous nor at the start of its storage
    return model


def test_a_handle_says_what_pytorch_asks_for_to_open_it() -> None:
    asked = list(inspect.signature(reductions.rebuild_cuda_tensor).parameters)
    assert asked == [
        "tensor_cls", "tensor_size", "tensor_stride", "tensor_offset", "storage_cls", "dtype", "storage_device",
        "storage_handle", "storage_size_bytes", "storage_offset_bytes", "requires_grad", "ref_counter_handle",
        "ref_counter_offset", "event_handle", "event_sync_required",
    ]  # fmt: skip


def test_a_handle_is_opened_with_what_it_was_made_of(card: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", lambda *given: opened.append(given))
    tensor = torch.zeros(6, 4, dtype=torch.bfloat16)[1:3, ::2]
    open_tensor(export_tensor(tensor), device=5)
    _, sent = as_on_a_gpu(tensor)
    assert opened == [(*sent[:6], 5, *sent[7:])]


@pytest.mark.engine
def test_handles_of_all_ranks_pass_through_the_serializer_of_the_engine(
    card: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0's manifest names every GPU; vLLM's own RPC refuses whatever is not plain data."""
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    model, other = weights(), [{"handle": b"of rank 1"}]

    def gather(shares: list[Any], own: Any) -> None:
        shares[:] = [own, (PLACES[1], other)]

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    manifest = IpcPublisher(0, 1 << 20, torch.bfloat16).stage(model, version=3, sharded=False)
    assert manifest is not None
    arrived = MsgpackDecoder().decode(MsgpackEncoder().encode(manifest.payload))
    assert arrived == manifest.payload
    assert list(arrived["handles"]) == list(PLACES)
    assert arrived["handles"][PLACES[1]] == other
    names = [name for name, _ in model.named_parameters()]
    assert arrived["names"] == names
    assert len(arrived["handles"][PLACES[0]]) == len(names)
    digest = Digest()
    for name, parameter in model.named_parameters():
        digest.add(name, parameter.detach())
    assert arrived["digest"] == digest.value().hex()
    assert card == ["synchronize"], "what is written is there before another process reads it"
    assert inspect.signature(handles.open_tensor).parameters.keys() == {"handle", "device"}


@pytest.mark.engine
def test_a_rank_sends_what_its_last_step_wrote(card: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The broadcast reads on streams of its own, so all that was queued must have ended before the first tensor is read."""
    from vllm.distributed.weight_transfer import packed_tensor

    def producer(iterator: Iterable[Any], post_iter_func: Any, **_: Any) -> None:
        for item in iterator:
            card.append(item[0])
            assert post_iter_func(item) is item[1]

    def read(parameters: Iterable[Any], limit: int, sharded: bool) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in parameters:
            card.append(f"read {name}")
            yield name, parameter.detach()

    monkeypatch.setattr(packed_tensor, "packed_nccl_broadcast_producer", producer)
    monkeypatch.setattr("learner.publish.gpu.stream", read)
    model = weights()
    NcclPublisher(0, 1 << 20, torch.bfloat16).send(model, sharded=False)
    order = [told for name, _ in model.named_parameters() for told in (f"read {name}", name)]
    assert card == ["synchronize", *order, DIGEST]


@pytest.mark.engine
def test_a_rank_computes_on_after_a_meeting_where_it_computed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's communicator makes a stream of its own the current one; kernels of the next step would be on it, and the memory of
    the old one lost to them."""
    from vllm.distributed.weight_transfer import nccl_common

    current = ["the rank's"]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.__setitem__(0, stream))

    def meet(_: Any) -> str:
        torch.cuda.set_stream("vLLM's")  # type: ignore[arg-type]
        return "group"

    monkeypatch.setattr(nccl_common, "trainer_init", meet)
    publisher = NcclPublisher(0, 1 << 20, torch.bfloat16)
    publisher.connect("127.0.0.1", 1, 2)
    assert current == ["the rank's"]
    monkeypatch.setattr(nccl_common, "trainer_init", lambda _: meet(_) and 1 / 0)
    publisher._group = None
    with pytest.raises(ZeroDivisionError):
        publisher.connect("127.0.0.1", 1, 2)
    assert current == ["the rank's"], "also where it failed"
