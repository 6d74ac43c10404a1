"""A run on hosts that share no folder: driver and engines on one, ranks on another, and a storage on a third.

The folder of the run and the copies from the storage are in `/tmp`, of which each host has its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import DASHBOARD, Host, Hosts, obstacle
from tests.cluster.test_two_hosts import APART, GOES_ON, RAYZERO, SMALL, assert_sound
from tests.s3_server import BUCKET, KEYS, lacking

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(obstacle()), reason=obstacle()),
    pytest.mark.skipif(bool(lacking()), reason=lacking()),
]

RUN, CACHE, PORT = "/tmp/runs/apart", "/tmp/cache", 5000
MAKE_BUCKET = f"""
import time, pyarrow.fs as fs
store = fs.S3FileSystem(endpoint_override="127.0.0.1:{PORT}", scheme="http", region="us-east-1", allow_bucket_creation=True)
until = time.monotonic() + 60
while True:
    try:
        store.create_dir("{BUCKET}")
        break
    except OSError:
        assert time.monotonic() < until
        time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts() as hosts:
        head, other, store = (hosts.add(name) for name in ("head", "other", "store"))
        with (hosts.shared / "s3.log").open("w") as log:
            store.popen(sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(PORT), stdout=log, stderr=log)
        store.run(sys.executable, "-c", MAKE_BUCKET, env=KEYS)
        head.start_ray(cpus=2, resources=json.dumps({"engines": 2}))
        other.start_ray(head, cpus=2, resources=json.dumps({"ranks": 2}))
        yield hosts


def command(hosts: Hosts, *settings: str) -> tuple[str, ...]:
    head, store = hosts.hosts["head"], hosts.hosts["store"]
    storage = f"s3://{BUCKET}/runs?endpoint_override={store.address}:{PORT}&scheme=http"
    return (
        *(RAYZERO, "submit", "arithmetic", *SMALL, *APART, GOES_ON, *settings, "--run", RUN),
        *(f"cluster.storage={storage}", f"cluster.storage_cache={CACHE}"),
        *(word for name, value in KEYS.items() for word in ("--env", f"{name}={value}")),
        *("--address", f"http://{head.address}:{DASHBOARD}", "--command", RAYZERO, "--follow"),
    )


def files(host: Host, folder: str) -> set[str]:
    found = host.run("sh", "-c", f"test ! -d {folder} || find {folder} -type f -printf '%P\\n'")
    return set(found.splitlines())


def steps(head: Host) -> list[dict[str, Any]]:
    text = head.run("sh", "-c", f"cat {RUN}/metrics.jsonl 2>/dev/null || true")
    lines = [json.loads(line) for line in text.splitlines()]
    return [each for each in lines if each["kind"] == "step" and each["stage"] == "reasoning"]


def test_a_run_needs_no_folder_that_hosts_share(hosts: Hosts, tmp_path: Path) -> None:
    head, other = hosts.hosts["head"], hosts.hosts["other"]
    job = head.popen(*command(hosts), stdout=(tmp_path / "job.log").open("w"), stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while len(steps(head)) < 2:
        assert job.poll() is None, (tmp_path / "job.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.5)
    head.run(RAYZERO, "stop", RUN)
    job.wait(90)
    before = steps(head)
    assert_sound(before, len(before))
    here = files(head, RUN)
    assert {"base/stored.json", "cold-start/export/config.json", "cold-start/export/stored.json"} < here
    assert not [name for name in here if name.endswith((".safetensors", ".pt"))], "weights are in the storage alone"
    for host in (head, other):
        fetched = files(host, CACHE)
        assert [name for name in fetched if name.endswith("-export/model.safetensors")], "each host has fetched it"
        assert not [name for name in fetched if name.startswith("leaving-") or name.endswith(".part")]
    assert files(other, RUN) == set()

    head.run("rm", "-r", RUN, CACHE)
    told = head.run(*command(hosts), timeout=300)
    assert "continuing the run" in told
    assert "continues from step" in told
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in told
    after = steps(head)
    assert_sound(after, 12)
    assert after[: len(before)] == before
    secret = head.run("sh", "-c", f"grep -rl {KEYS['AWS_SECRET_ACCESS_KEY']} {RUN} {CACHE} || true")
    assert not secret.strip()
