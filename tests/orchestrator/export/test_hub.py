"""`--push` over the wire, to a hub on loopback that keeps what it gets."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import run
from tests.orchestrator.export.finished_run import write_run


class Hub(ThreadingHTTPServer):
    """What huggingface_hub asks a hub for when it uploads a folder."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.refused: dict[str, int] = {}
        """Beginning of a path → status that it is answered with."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            tree = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.server.files]
            return self._answer(tree)
        if self.path != "/api/whoami-v2":
            self.server.refused.setdefault(self.path, 404)
        return self._answer({"name": "me", "type": "user"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            made = json.loads(body)
            self.server.created.append(made)
            answer = {"url": f"{self.server.address}/{made.get('organization', 'me')}/{made['name']}"}
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            answer = {
                "files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in asked]
            }
        elif self.path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/commit/" in self.path:
            answer = {"commitUrl": f"{self.server.address}/me/mine/commit/1", "commitOid": "1"}
            if not self._refusal():
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    elif line["key"] == "deletedFile":
                        del self.server.files[line["value"]["path"]]
                    elif line["key"] == "header":
                        self.server.commits.append(line["value"]["summary"])
        self._answer(answer)

    def _refusal(self) -> int:
        return next((status for path, status in self.server.refused.items() if self.path.startswith(path)), 0)

    def _answer(self, answer: Any) -> None:
        authorised = self.headers.get("authorization") == "Bearer good-token"
        status = self._refusal() or (200 if authorised else 401)
        data = json.dumps(answer if status == 200 else {"error": "You shall not pass"}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "good-token")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_folder_arrives_whole_in_one_commit(
    hub: Hub, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["export", f"{run_dir}/rl@10", str(out), "--push", "me/mine", "--private"]) == 0
    assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert hub.commits == ["rl of small, step 10"]
    assert [(each["name"], each["organization"]) for each in hub.created] == [("mine", "me")]
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert b"from_pretrained('me/mine')" in hub.files["README.md"]
    assert f"{hub.address}/me/mine" in capsys.readouterr().out


def test_weights_that_were_there_before_go_and_other_files_stay(hub: Hub, run_dir: Path, tmp_path: Path) -> None:
    before = ("adapter_config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt")
    hub.files = dict.fromkeys(before, b"old")
    assert run(["export", f"{run_dir}/sft", str(tmp_path / "out"), "--push", "me/mine"]) == 0
    assert set(hub.files) == {"notes.txt", *(path.name for path in (tmp_path / "out").iterdir())}


@pytest.mark.parametrize(
    ("refused", "token", "name", "code", "fragments", "written"),
    [
        ({}, "", "me/mine", 2, ["no token; set HF_TOKEN"], False),
        ({}, "stale", "me/mine", 2, ["refuses this token (401)"], False),
        ({}, "good-token", "a/b/c", 2, ["is no name of a repository; write it as OWNER/NAME"], False),
        ({"/api/repos/create": 403}, "good-token", "them/theirs", 2, ["refuses this token (403)", "is whole"], True),
        ({"/api/models": 400}, "good-token", "me/mine", 2, ["answers 400: You shall not pass", "is whole"], True),
    ],
)
def test_a_refusal_is_two_lines_and_before_anything_is_written_where_it_can_be(
    hub: Hub,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: dict[str, int],
    token: str,
    name: str,
    code: int,
    fragments: list[str],
    written: bool,
) -> None:
    hub.refused = refused
    monkeypatch.setenv("HF_TOKEN", token)
    assert run(["export", f"{run_dir}/sft", str(tmp_path / "out"), "--push", name]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"rayzero: --push {name}: ")
    assert len(error.splitlines()) <= 2
    assert all(fragment in error for fragment in fragments)
    assert (tmp_path / "out").is_dir() == written
    assert hub.files == {}
    assert "good-token" not in error


def test_a_hub_that_does_not_answer_is_named(
    hub: Hub, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert run(["export", f"{run_dir}/sft", str(tmp_path / "out"), "--push", "me/mine"]) == 1
    assert "http://127.0.0.1:1 does not answer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_nobody_could_use_is_not_pushed(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path / "runs" / "small", learner={"lora_rank": 2})
    argv = ["export", f"{run_dir}/rl@10", str(tmp_path / "out"), "--adapter", "--push", "me/mine"]
    assert run(argv) == 2
    assert "name it with --base-model OWNER/NAME" in capsys.readouterr().err
    assert run([*argv, "--base-model", "me/sft"]) == 0
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "me/sft"
    assert str(tmp_path).encode() not in b"".join(hub.files.values())
