"""Weights from one host to others, and into an engine on the same host, beside what the machine does anyway.

    python -m tests.bench.publish hosts [--megabytes 540] [--receivers 1 4] [--mbit 0 1000]
    python -m tests.bench.publish engine [--hidden 576 --layers 30]

`hosts`: files in the shared memory of one host made of namespaces (tests/cluster/hosts.py; root) to others, through relays in a row
(rollout/weights/relay.py), beside a plain socket that is read into memory between two of the same hosts, in the same run. `--mbit`:
rate of every host's link; 0: as fast as this machine copies, so that more hosts share its cores. Best of three.

`engine`: a float32 model that a learner rank publishes to a vLLM engine on this host through shared memory: the parts of it, the
standstill of generation, and beside them a copy of as many bytes in memory and the engine's own reload from its folder. Best of three.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rollout.weights.link import FileServer, Source
from rollout.weights.manifest import Bucket, WeightManifest, write_bucket
from rollout.weights.relay import WeightRelay, offered
from tests.cluster.hosts import Host, Hosts

BUCKET_BYTES = 64 << 20
REPEATS = 3


# --- Between hosts. Each part below is a process of its own on a host, and says what it measured in a line of JSON.


def serve(address: str, megabytes: int) -> None:
    """Files in shared memory, offered through the file server and through a plain socket, until it is ended."""
    import socket

    data = np.random.default_rng(0).integers(0, 256, size=BUCKET_BYTES, dtype=np.uint8)
    sizes = [BUCKET_BYTES] * (megabytes * 10**6 // BUCKET_BYTES) + [megabytes * 10**6 % BUCKET_BYTES]
    files = [write_bucket(Path(f"/dev/shm/0-{i}"), [data[:size]], ()) for i, size in enumerate(sizes)]
    server = FileServer(address)
    server.offer(offered(0, files, complete=True))
    plain = socket.create_server((address, 0))
    source = server.source
    told = {"port": source.port, "secret": source.secret.hex(), "plain": plain.getsockname()[1]}
    print(json.dumps(told | {"files": [[each.num_bytes, each.checksum] for each in files]}), flush=True)
    while True:
        link, _ = plain.accept()
        with link:
            for each in files:
                with open(each.path, "rb") as content:
                    link.sendfile(content)


def relay(address: str) -> None:
    """A relay that is told where to fetch from, line by line."""
    here = WeightRelay(address)
    print(json.dumps({"port": here.source().port, "secret": here.source().secret.hex()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        buckets = tuple(
            Bucket(path=f"/0-{i}", num_bytes=size, checksum=crc, tensors=())
            for i, (size, crc) in enumerate(asked["files"])
        )
        manifest = WeightManifest(version=0, backend="shm", num_bytes=0, buckets=buckets)
        began = time.perf_counter()
        here.receive(manifest, Source(asked["address"], asked["port"], bytes.fromhex(asked["secret"])))
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds}), flush=True)


def take(address: str, port: int, size: int) -> None:
    """A plain socket, read into memory."""
    import socket

    room = bytearray(size)
    room[:] = bytes(size)  # pages are there before the clock runs
    view, got, began = memoryview(room), 0, time.perf_counter()
    with socket.create_connection((address, port)) as link:
        while got < size:
            got += link.recv_into(view[got : got + (4 << 20)])
    print(json.dumps({"seconds": time.perf_counter() - began}))


def part(host: Host, *arguments: object) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "tests.bench.publish", *map(str, arguments))
    return host.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def row_of(origin: Host, offer: dict[str, Any], hosts: list[Host]) -> float:
    """Seconds until the last host of a row has everything; best of some."""
    relays = [part(host, "relay", host.address) for host in hosts]
    told = [said(each) for each in relays]
    addresses = [origin.address, *(host.address for host in hosts)]
    best = float("inf")
    for _ in range(REPEATS):
        for each, address, source in zip(relays, addresses, [offer, *told], strict=False):
            assert each.stdin is not None
            each.stdin.write(
                json.dumps({"address": address, "files": offer["files"], **{k: source[k] for k in ("port", "secret")}})
            )
            each.stdin.write("\n")
            each.stdin.flush()
        best = min(best, max(said(each)["seconds"] for each in relays))
    for each in relays:
        each.communicate()
    return best


def between_hosts(megabytes: int, receivers: list[int], rates: list[int]) -> None:
    print("| link | receiving hosts | seconds | of a plain socket to one host | of one host |\n|---|---|---|---|---|")
    for rate in rates:
        with Hosts() as hosts:
            origin, *others = [hosts.add(f"host-{i}") for i in range(1 + max(receivers))]
            server = part(origin, "serve", origin.address, megabytes)
            offer = said(server)
            if rate:
                for host in hosts.hosts.values():
                    host.slow(rate)
            size = sum(each[0] for each in offer["files"])
            plain = min(
                json.loads(part(others[0], "take", origin.address, offer["plain"], size).communicate()[0])["seconds"]
                for _ in range(REPEATS)
            )
            link = f"{rate} Mbit/s" if rate else "free"
            print(f"| {link} | 1, plain socket | {plain:.2f} | | |", flush=True)
            single = 0.0
            for count in receivers:
                seconds = row_of(origin, offer, others[:count])
                single = single or seconds
                print(
                    f"| {link} | {count} | {seconds:.2f} | {plain / seconds:.0%} | {seconds / single:.2f} |", flush=True
                )


# --- Into an engine on this host


def into_engine(hidden: int, layers: int) -> None:
    os.environ["RAYZERO_ACTOR_LOGS"] = "0"
    from learner.model.small import BuildSpec
    from learner.service import LearnerGroup
    from orchestrator.cluster.session import ray_session
    from orchestrator.config.sections.cluster import ClusterSection
    from rollout.engine import VllmEngine
    from rollout.service import RolloutPool
    from tests.engine.conftest import engine_spec
    from tests.learner.specs import learner_spec

    spec = BuildSpec(
        tokenizer="characters",
        vocab_size=0,
        layers=layers,
        hidden=hidden,
        heads=hidden // 64,
        kv_heads=max(1, hidden // 192),
        intermediate=hidden * 8 // 3,
        tied=True,
        max_tokens=128,
        seed=1,
    )

    async def run(folder: str) -> None:
        common: dict[str, Any] = {"timeout_s": 300, "start_timeout_s": 300}
        learner = await LearnerGroup.start(ranks=1, cpus=1, gpus=1, device="cpu", threads=2, **common)
        count = await learner.build(spec, [], folder)
        model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        model.set_result(folder)
        pool = await RolloutPool.start(engine_spec(), model, replicas=1, cpus=1, gpus=1, threads=2, **common)
        await learner.open(learner_spec(folder))
        best: dict[str, float] = {}
        for version in range(1, 1 + REPEATS):
            began = time.perf_counter()
            manifest = await learner.stage_weights(version)
            staged = time.perf_counter()
            report = await pool.load(manifest, learner)
            loaded = time.perf_counter()
            await learner.release_weights(manifest)
            parts = {"stage": staged - began, "load": loaded - staged, "standstill": report.pause_seconds}
            parts["publish"] = time.perf_counter() - began
            best = {name: min(value, best.get(name, value)) for name, value in parts.items()}
        data = np.random.default_rng(0).integers(0, 256, size=manifest.num_bytes, dtype=np.uint8)
        room = np.empty_like(data)
        for _ in range(REPEATS):
            began = time.perf_counter()
            room[:] = data
            best["copy in memory"] = min(best.get("copy in memory", 9e9), time.perf_counter() - began)
        await pool.close()
        await learner.close()
        engine = await VllmEngine.start(0, engine_spec(), folder)
        for _ in range(REPEATS):
            began = time.perf_counter()
            await engine._llm.collective_rpc("reload_weights")
            best["the engine's own reload"] = min(best.get("the engine's own reload", 9e9), time.perf_counter() - began)
        await engine.close()
        print(f"{count:,} parameters, {manifest.num_bytes / 1e6:.0f} MB in {len(manifest.buckets)} buckets")
        print("| part | seconds |\n|---|---|")
        for name, value in best.items():
            print(f"| {name} | {value:.2f} |")

    with tempfile.TemporaryDirectory() as folder, ray_session(ClusterSection(), "bench"):
        asyncio.run(run(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    hosts = commands.add_parser("hosts")
    hosts.add_argument("--megabytes", type=int, default=540)
    hosts.add_argument("--receivers", type=int, nargs="+", default=[1, 4])
    hosts.add_argument("--mbit", type=int, nargs="+", default=[0, 1000])
    engine = commands.add_parser("engine")
    engine.add_argument("--hidden", type=int, default=576)
    engine.add_argument("--layers", type=int, default=30)
    for name, arguments in {
        "serve": ("address", "megabytes"),
        "relay": ("address",),
        "take": ("address", "port", "size"),
    }.items():
        inner = commands.add_parser(name)
        for argument in arguments:
            inner.add_argument(argument, type=str if argument == "address" else int)
    options = vars(parser.parse_args())
    match options.pop("command"):
        case "hosts":
            between_hosts(options["megabytes"], options["receivers"], options["mbit"])
        case "engine":
            into_engine(**options)
        case name:
            {"serve": serve, "relay": relay, "take": take}[name](**options)


if __name__ == "__main__":
    main()
