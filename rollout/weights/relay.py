"""A host's copy of a publish: fetched once, however many engines it has, and passed on to the next host as it comes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rollout.weights.link import FileServer, Offered, Source, fetch
from rollout.weights.manifest import Bucket, WeightManifest, discard, remove_segments, segment_folder


def offered(version: int, files: Sequence[Bucket], *, complete: bool) -> dict[str, Offered]:
    """The files of a publish under the names that hosts ask each other by."""
    return {
        f"{version}/{number}": Offered(Path(file.path), file.num_bytes, file.num_bytes if complete else 0)
        for number, file in enumerate(files)
    }


class WeightRelay:
    """Lives on a host that engines live on and rank 0 of the learner does not; an actor of its own, which engines outlive."""

    def __init__(self, address: str) -> None:
        """`address`: of this host, as others reach it."""
        self._server = FileServer(address)
        self._folder = segment_folder()
        self._held: WeightManifest | None = None

    def source(self) -> Source:
        """Where the next host fetches from."""
        return self._server.source

    def receive(self, manifest: WeightManifest, source: Source) -> WeightManifest:
        """The manifest with its files in this host's shared memory; those of the publish before are freed.

        Raises:
            ServiceError: they did not arrive. Whether they are damaged is seen by whoever loads them.
        """
        self.release()
        local = self._placed(manifest)
        self._held = local
        for file in local.files:
            Path(file.path).parent.mkdir(mode=0o700, exist_ok=True)
        files = offered(manifest.version, local.files, complete=False)
        self._server.offer(files)
        fetch(source, files)
        return local

    def release(self) -> None:
        """Free what was received last."""
        self._server.offer({})
        if self._held is not None:
            discard(self._held)
            self._held = None

    def close(self) -> None:
        self._server.close()
        remove_segments(self._folder)

    def _placed(self, manifest: WeightManifest) -> WeightManifest:
        """The sender's checksums stay: they cover this way too."""
        here = self._folder / f"relay-{manifest.version}"
        buckets = tuple(replace(file, path=f"{here}-{i}") for i, file in enumerate(manifest.buckets))
        adapter = tuple(replace(file, path=f"{here}-adapter/{Path(file.path).name}") for file in manifest.adapter)
        return replace(manifest, buckets=buckets, adapter=adapter)
