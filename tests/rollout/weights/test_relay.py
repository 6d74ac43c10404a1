"""Weights on their way to other hosts: each fetches them once, from the one before it, and damage or a gap is an error."""

import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from rollout.errors import ServiceError
from rollout.weights import link, relay
from rollout.weights.link import FileServer, Offered, Source, fetch
from rollout.weights.manifest import Bucket, TensorMeta, WeightManifest, write_bucket
from rollout.weights.relay import WeightRelay, offered

LOOPBACK = "127.0.0.1"
SIZES = (3_000_001, 17, 0, 5_000_000)
NewRelay = Callable[[str], WeightRelay]


@pytest.fixture
def sent(tmp_path: Path) -> WeightManifest:
    rng = np.random.default_rng(0)
    (tmp_path / "adapter").mkdir()

    def written(name: str, size: int) -> Bucket:
        data = rng.integers(0, 256, size=size, dtype=np.uint8)
        return write_bucket(tmp_path / name, [data], (TensorMeta(name=name, dtype="uint8", shape=(size,)),))

    buckets = tuple(written(f"7-{i}", size) for i, size in enumerate(SIZES))
    adapter = tuple(written(f"adapter/{name}", 9) for name in ("adapter_config.json", "adapter_model.safetensors"))
    return WeightManifest(version=7, backend="shm", num_bytes=sum(SIZES) + 18, buckets=buckets, adapter=adapter)


@pytest.fixture
def origin(sent: WeightManifest) -> Iterator[FileServer]:
    server = FileServer(LOOPBACK)
    server.offer(offered(7, sent.files, complete=True))
    yield server
    server.close()


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewRelay]:
    made: list[WeightRelay] = []

    def new_relay(host: str) -> WeightRelay:
        (tmp_path / host).mkdir()
        monkeypatch.setattr(relay, "segment_folder", lambda: tmp_path / host)
        made.append(WeightRelay(LOOPBACK))
        return made[-1]

    yield new_relay
    for each in made:
        each.close()


def assert_same(local: WeightManifest, sent: WeightManifest, folder: Path) -> None:
    assert (local.version, local.backend, local.num_bytes) == (sent.version, sent.backend, sent.num_bytes)
    for here, there in zip(local.files, sent.files, strict=True):
        assert Path(here.path).is_relative_to(folder)
        assert Path(here.path).read_bytes() == Path(there.path).read_bytes()
        assert Path(here.path).stat().st_mode & 0o077 == 0
        assert (here.num_bytes, here.checksum, here.tensors) == (there.num_bytes, there.checksum, there.tensors)
    names = [Path(file.path).name for file in local.adapter]
    assert names == [Path(file.path).name for file in sent.adapter], "vLLM finds the files of an adapter by their names"


def test_a_host_gets_the_same_bytes_and_frees_them(
    sent: WeightManifest, origin: FileServer, new: NewRelay, tmp_path: Path
) -> None:
    host = new("one")
    local = host.receive(sent, origin.source)
    assert_same(local, sent, tmp_path / "one")
    host.release()
    assert [path for path in (tmp_path / "one").rglob("*") if path.is_file()] == []


def test_hosts_in_a_row_pass_on_what_has_come_so_far(sent: WeightManifest, new: NewRelay, tmp_path: Path) -> None:
    """The origin stops in the middle of the first file, and the last host has the first half of it by then."""
    files = offered(7, sent.files, complete=True)
    half = Offered(Path(sent.buckets[0].path), SIZES[0], ready=SIZES[0] // 2)
    server = FileServer(LOOPBACK)
    server.offer(files | {"7/0": half})
    hosts = [new(name) for name in ("one", "two", "three")]
    found: dict[int, WeightManifest] = {}

    def receive(number: int, source: Source) -> None:
        found[number] = hosts[number].receive(sent, source)

    sources = [server.source, hosts[0].source(), hosts[1].source()]
    threads = [threading.Thread(target=receive, args=(number, sources[number])) for number in (2, 1, 0)]
    for thread in threads:
        thread.start()
    last = tmp_path / "three" / "relay-7-0"
    expected = Path(sent.buckets[0].path).read_bytes()[: SIZES[0] // 2]
    waiting = threading.Event()
    for _ in range(1000):
        if last.exists() and last.read_bytes()[: SIZES[0] // 2] == expected:
            break
        waiting.wait(0.01)
    else:
        pytest.fail("half of the file did not reach the end of the row")
    assert found == {}
    half.grow(SIZES[0] - SIZES[0] // 2)
    for thread in threads:
        thread.join(30)
    for number, host in enumerate(("one", "two", "three")):
        assert_same(found[number], sent, tmp_path / host)
    server.close()


def test_the_senders_checksum_covers_the_way(sent: WeightManifest, origin: FileServer, new: NewRelay) -> None:
    first = Path(sent.buckets[0].path)
    first.write_bytes(b"\x00" + first.read_bytes()[1:])
    local = new("one").receive(sent, origin.source)
    matches = [zlib.crc32(Path(file.path).read_bytes()) == file.checksum for file in local.files]
    assert matches == [False] + [True] * (len(matches) - 1)


def test_whoever_does_not_know_the_secret_gets_nothing(sent: WeightManifest, origin: FileServer, new: NewRelay) -> None:
    wrong = Source(LOOPBACK, origin.source.port, b"\x00" * 32)
    with pytest.raises(ServiceError, match=r"weights \(7/0\) from 127\.0\.0\.1:\d+ did not arrive"):
        new("one").receive(sent, wrong)
    assert origin.source.secret.hex() not in repr(origin.source)
    with socket.create_connection((LOOPBACK, origin.source.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 40)
        stranger.settimeout(5)
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""


def test_nothing_is_served_but_what_is_offered(
    origin: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "IDLE_S", 0.2)
    (tmp_path / "secret").write_bytes(b"mine")
    for name in ("../secret", str(tmp_path / "secret"), "7/99"):
        with pytest.raises(ServiceError, match="did not arrive: "):
            fetch(origin.source, {name: Offered(tmp_path / "got", 4, 0)})


def test_another_file_of_the_name_is_noticed(origin: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="it has 3000001 bytes in place of 4"):
        fetch(origin.source, {"7/0": Offered(tmp_path / "got", 4, 0)})


def test_a_source_that_goes_away_ends_the_whole_row(sent: WeightManifest, new: NewRelay) -> None:
    half = Offered(Path(sent.buckets[0].path), SIZES[0], ready=SIZES[0] // 2)
    server = FileServer(LOOPBACK)
    server.offer(offered(7, sent.files, complete=True) | {"7/0": half})
    one, two = new("one"), new("two")
    failures: list[str] = []

    def receive(host: WeightRelay, source: Source) -> None:
        with pytest.raises(ServiceError) as caught:
            host.receive(sent, source)
        failures.append(str(caught.value))

    threads = [
        threading.Thread(target=receive, args=(one, server.source)),
        threading.Thread(target=receive, args=(two, one.source())),
    ]
    for thread in threads:
        thread.start()
    half.fail()
    for thread in threads:
        thread.join(30)
    assert len(failures) == 2
    assert all("did not arrive" in failure for failure in failures)
    server.close()


def test_the_same_version_again_is_the_new_one(sent: WeightManifest, origin: FileServer, new: NewRelay) -> None:
    host = new("one")
    host.receive(sent, origin.source)
    first = Path(sent.buckets[1].path)
    first.write_bytes(b"n" * SIZES[1])
    local = host.receive(sent, origin.source)
    assert Path(local.buckets[1].path).read_bytes() == b"n" * SIZES[1]
