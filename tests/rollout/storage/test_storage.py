"""Objects and folders of a storage, on a folder of this machine and on a real S3-compatible server."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import InputError, ServiceError
from rollout.storage import folders, host, objects
from rollout.storage.folders import MANIFEST, commit, delete_folder, fetch, put_files, stored_files, written
from rollout.storage.objects import Storage
from rollout.storage.uri import check_uri, inside, is_uri, shown, split
from tests.s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, s3_server(tmp_path_factory.mktemp("s3"), patch) as server:
        yield server


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place, on a kind of storage each."""
    monkeypatch.setenv(host.VARIABLE, str(tmp_path / "cache"))
    if request.param == "file":
        return f"file://{tmp_path}/storage"
    server: S3Server = request.getfixturevalue("server")
    return server.uri(tmp_path.name)


def filled(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# --- URIs


@pytest.mark.parametrize(
    ("uri", "name", "joined"),
    [
        ("s3://b", "x", "s3://b/x"),
        ("s3://b/p/", "x/y", "s3://b/p/x/y"),
        (
            "s3://b/p?scheme=http&endpoint_override=127.0.0.1:1",
            "x",
            "s3://b/p/x?scheme=http&endpoint_override=127.0.0.1:1",
        ),
        ("file:///a", "with space", "file:///a/with%20space"),
    ],
)
def test_a_name_in_a_folder_stands_before_the_options(uri: str, name: str, joined: str) -> None:
    assert inside(uri, name) == joined
    above, last = split(joined)
    assert last == name.rpartition("/")[2]
    assert inside(above, last) == joined
    assert "?" not in shown(joined)


@pytest.mark.parametrize("uri", ["s3://b", "s3://b/p?region=eu-west-1", "gs://anonymous@b/p", "file:///a", "hdfs://h:8020/p", "abfs://c@a.dfs.core.windows.net/p"])  # fmt: skip
def test_what_pyarrow_knows_is_taken(uri: str) -> None:
    check_uri(uri)
    assert is_uri(uri)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s4://b", "is no URI of a storage"),
        ("gss://b", "did you mean 'gs'"),
        ("bucket/prefix", "is no URI of a storage"),
        ("s3://", "names no folder"),
        ("file:///", "names no folder"),
        ("file://a/b", "three slashes"),
        ("s3://AKIA:hush@b/p", "holds a secret"),
        ("s3://AKIA@b/p", "holds a secret"),
        ("abfs://c:hush@a.dfs.core.windows.net/p", "holds a secret"),
        ("abfs://c@a.dfs.core.windows.net/p?sas_token=hush", "holds a secret"),
        ("s3://b/p?secret_key=hush", "holds a secret"),
    ],
)
def test_another_uri_is_refused_and_a_secret_never_shown(uri: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        check_uri(uri)
    assert "hush" not in str(refused.value)
    assert "AKIA" not in str(refused.value)


@pytest.mark.parametrize("place", ["runs/x", "/a/b", "Qwen/Qwen2.5-1.5B", "hub:a/b", "https://h/p", ""])
def test_a_folder_or_a_hub_id_is_no_uri(place: str) -> None:
    assert not is_uri(place)


# --- Objects


def test_what_is_written_is_read_listed_and_deleted(uri: str, tmp_path: Path) -> None:
    storage = Storage(uri)
    assert storage.list() == {}
    big = os.urandom(20 << 20)
    (tmp_path / "big").write_bytes(big)
    stored = storage.put_file("deep/down/big file", tmp_path / "big")
    storage.write("small", b"1")
    storage.write("small", b"22")
    assert {name: size for name, (size, _) in storage.list().items()} == {"deep/down/big file": len(big), "small": 2}
    assert all(abs(time.time() - changed) < 60 for _, changed in storage.list().values())
    storage.get_file("deep/down/big file", tmp_path / "new" / "back", stored)
    assert (tmp_path / "new" / "back").read_bytes() == big
    assert storage.read("small") == b"22"
    storage.delete("small")
    storage.delete("small")
    assert list(storage.list()) == ["deep/down/big file"]
    with pytest.raises(FileNotFoundError):
        storage.read("small")
    storage.delete_all()
    storage.delete_all()
    assert storage.list() == {}


def test_a_copy_that_is_not_what_the_manifest_says_is_no_copy(uri: str, tmp_path: Path) -> None:
    storage = Storage(uri)
    (tmp_path / "own").write_bytes(b"what was meant")
    stored = storage.put_file("x", tmp_path / "own")
    storage.write("x", b"something else")
    with pytest.raises(ServiceError, match="not the 14 of its manifest"):
        storage.get_file("x", tmp_path / "copy", stored)
    assert not list(tmp_path.glob("copy*"))


def test_a_file_that_cannot_be_read_to_its_end_leaves_no_object(uri: str, tmp_path: Path) -> None:
    storage = Storage(uri)

    def chunks() -> Iterator[bytes]:
        yield b"x" * (6 << 20)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError):
        storage._write("x", chunks)
    assert storage.list() == {}


def test_the_probe_passes_and_leaves_nothing(uri: str) -> None:
    Storage(uri).probe()
    assert Storage(uri).list() == {}


def test_a_wrong_bucket_a_wrong_option_and_a_folder_that_is_a_file_are_told_in_a_line(
    server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for uri, says in (
        (
            server.uri("p", bucket="nobody-s"),
            "NO_SUCH_BUCKET.*: The specified bucket does not exist; make it, or name another",
        ),
        (server.uri("p") + "&flavour=1", "flavour"),
        (f"file://{tmp_path}/file", "."),
    ):
        began = time.monotonic()
        with pytest.raises(InputError, match=says) as refused:
            Storage(uri).probe()
        assert "\n" not in str(refused.value)
        assert time.monotonic() - began < 3


def test_keys_that_the_server_does_not_know_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path, monkeypatch, checks_keys=True) as strict:
        began = time.monotonic()
        with pytest.raises(InputError, match=r"INVALID_ACCESS_KEY_ID.*; set the keys") as refused:
            Storage(strict.uri("p")).probe()
        assert time.monotonic() - began < 5
    assert "not-a-real-one" not in str(refused.value)


def test_the_address_of_a_server_may_come_from_the_environment(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    storage = Storage("s3://models/by-environment")
    storage.write("x", b"1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert Storage(server.uri("by-environment")).read("x") == b"1"


# --- A storage that is away


class Flaky:
    """A file system whose next calls fail."""

    type_name = "s3"

    def __init__(self, problems: list[Exception], answer: Any = None) -> None:
        self.problems, self.answer = problems, answer

    def get_file_info(self, _: Any) -> Any:
        if self.problems:
            raise self.problems.pop(0)
        return []


def flaky(monkeypatch: pytest.MonkeyPatch, *problems: Exception) -> tuple[Storage, list[float]]:
    pauses: list[float] = []
    monkeypatch.setattr(objects.time, "sleep", pauses.append)
    monkeypatch.setattr(objects, "_opened", lambda _: (Flaky(list(problems)), "b/p"))
    return Storage("s3://b/p"), pauses


AWAY = (
    "When listing objects: AWS Error NETWORK_CONNECTION during ListObjectsV2 operation: curlCode: 7, Could not connect"
)
BUSY = "When listing objects: AWS Error SLOW_DOWN during ListObjectsV2 operation: Please reduce your request rate"
REFUSED = "When listing objects: AWS Error ACCESS_DENIED during ListObjectsV2 operation: Access Denied (Request ID: 7)"


def test_what_passes_is_tried_again_with_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, pauses = flaky(monkeypatch, OSError(AWAY), OSError(BUSY), OSError(104, "reset"), OSError(AWAY))
    assert storage.list() == {}
    assert len(pauses) == 4
    assert all(0.25 * 2**i <= pause <= 0.5 * 2**i for i, pause in enumerate(pauses))


@pytest.mark.parametrize(
    "problem", [OSError(REFUSED), PermissionError(13, "no"), OSError(28, "No space left on device")]
)
def test_what_does_not_pass_is_told_at_once(monkeypatch: pytest.MonkeyPatch, problem: OSError) -> None:
    storage, pauses = flaky(monkeypatch, problem)
    with pytest.raises(ServiceError, match="storage s3://b/p: its files could not be listed") as told:
        storage.list()
    assert not pauses
    assert "Request ID" not in str(told.value)


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, _ = flaky(monkeypatch, *(OSError(AWAY) for _ in range(9)))
    storage.away_s = 2.0
    monkeypatch.setattr(objects.time, "monotonic", iter(range(100)).__next__)
    with pytest.raises(ServiceError, match=r"within \d s: NETWORK_CONNECTION"):
        storage.list()


def test_a_server_that_is_frozen_for_a_while_is_waited_for(server: S3Server) -> None:
    storage = Storage(server.uri("frozen"))
    storage.write("x", b"1")
    done: list[bytes] = []
    with server.away():
        reader = threading.Thread(target=lambda: done.append(storage.read("x")))
        reader.start()
        reader.join(4)
        assert not done
    reader.join(60)
    assert done == [b"1"]


# --- Folders


FILES = {"config.json": b"{}", "deep/model.safetensors": bytes(range(256)) * 4096, "empty": b""}


def test_a_folder_is_there_once_its_manifest_is(uri: str, tmp_path: Path) -> None:
    place = inside(uri, "run/export")
    files = put_files(place, filled(tmp_path / "own", FILES))
    with pytest.raises(FileNotFoundError, match="not whole"):
        fetch(place)
    commit(place, files)
    copy = fetch(place)
    assert {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == FILES
    assert fetch(place) == copy
    delete_folder(place)
    assert Storage(place).list() == {}
    with pytest.raises(FileNotFoundError):
        stored_files(place)


def test_files_of_several_hosts_are_one_folder(uri: str, tmp_path: Path) -> None:
    place, files = inside(uri, "step-1"), []
    for rank in range(3):
        with written(place) as (folder, own):
            filled(folder, {f"shard-{rank}": bytes([rank]) * 100})
        assert not folder.exists(), "what is on its way is deleted"
        files += own
    commit(place, files)
    copy = fetch(place, lambda name: name != "shard-1")
    assert sorted(path.name for path in copy.iterdir()) == ["shard-0", "shard-2"]
    assert fetch(place) == copy
    assert (copy / "shard-1").read_bytes() == b"\1" * 100


def test_a_rank_that_fails_leaves_no_folder_behind(uri: str, tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        filled(folder, FILES)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError), written(inside(uri, "x")) as (folder, _):
        save(folder)
    assert not folder.exists()
    assert Storage(inside(uri, "x")).list() == {}


def test_a_file_that_did_not_arrive_is_no_folder(uri: str, tmp_path: Path) -> None:
    place = inside(uri, "x")
    files = put_files(place, filled(tmp_path / "own", FILES))
    Storage(place).delete("config.json")
    with pytest.raises(ServiceError, match=r"config\.json was written, and is not there"):
        commit(place, files)
    with pytest.raises(FileNotFoundError):
        stored_files(place)


def test_two_hosts_that_write_one_name_are_told(uri: str, tmp_path: Path) -> None:
    first = put_files(inside(uri, "x"), filled(tmp_path / "a", {"same": b"1"}))
    second = put_files(inside(uri, "x"), filled(tmp_path / "b", {"same": b"2"}))
    with pytest.raises(ServiceError, match="two hosts wrote a file same"):
        commit(inside(uri, "x"), first + second)
    commit(inside(uri, "x"), second + second)


def test_a_folder_that_was_written_anew_is_fetched_anew(uri: str, tmp_path: Path) -> None:
    place, copies = inside(uri, "x"), []
    for data in (b"before", b"behind"):
        commit(place, put_files(place, filled(tmp_path / "own", {"file": data})))
        copies.append(fetch(place))
    assert [(copy / "file").read_bytes() for copy in copies] == [b"before", b"behind"]


def test_processes_of_a_host_fetch_a_file_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, fetched = inside(uri, "x"), []
    commit(place, put_files(place, filled(tmp_path / "own", FILES)))
    get = Storage.get_file

    def slow(self: Storage, name: str, *args: Any) -> None:
        fetched.append(name)
        time.sleep(0.1)
        get(self, name, *args)

    monkeypatch.setattr(Storage, "get_file", slow)
    several = [threading.Thread(target=fetch, args=(place,)) for _ in range(3)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert sorted(fetched) == sorted(FILES)


def test_copies_that_nobody_asked_for_in_a_day_are_cleared_away(uri: str, tmp_path: Path) -> None:
    copies = []
    for name in ("old", "new"):
        commit(inside(uri, name), put_files(inside(uri, name), filled(tmp_path / name, FILES)))
        copies.append(fetch(inside(uri, name)))
    long_ago = time.time() - host.UNUSED_S - 60
    os.utime(copies[0], (long_ago, long_ago))
    fetch(inside(uri, "new"))
    assert [copy.exists() for copy in copies] == [False, True]


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", ""])
def test_a_manifest_leads_nowhere_else(uri: str, name: str) -> None:
    Storage(uri).write(MANIFEST, json.dumps({"files": [{"name": name, "size": 1, "sha256": ""}]}).encode())
    with pytest.raises(ServiceError, match="no manifest"):
        fetch(uri)


def test_a_place_that_is_no_uri_is_the_folder_itself(tmp_path: Path) -> None:
    with written(str(tmp_path / "own")) as (folder, files):
        assert folder == tmp_path / "own"
    assert files == []
    assert folders.local_folder("Qwen/Qwen2.5-1.5B") == "Qwen/Qwen2.5-1.5B"
