"""What the sandbox can hold on this machine: found out by starting it and attacking it, not by asking for versions."""

import platform
import sys
from dataclasses import dataclass

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Limits, SandboxFault, SandboxUnavailable, Tier

_WAYS_OUT = {
    "unshare": "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, "
    "kernel.apparmor_restrict_unprivileged_userns=0); a container refuses them by its seccomp profile (docker --security-opt "
    "seccomp=unconfined, Kubernetes seccompProfile: Unconfined), and to root without CAP_SYS_ADMIN: be another user in it",
    "map user": "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    "mounts": "a container's own mount policy is in the way: docker --security-opt systempaths=unconfined "
    "--security-opt apparmor=unconfined, Kubernetes procMount: Unmasked with hostUsers: false",
    "landlock": "a kernel of 5.13 or later with Landlock among its security modules (lsm=landlock,…)",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or AArch64",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One tier of the sandbox."""

    tier: Tier
    holds: bool
    detail: str
    """What the tier gives, or the step that failed."""
    way_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    tier: Tier | None
    """The best tier that holds; None when neither A nor B does."""
    findings: tuple[Finding, ...]

    @property
    def summary(self) -> str:
        """The finding in one line."""
        if self.tier:
            return f"tier {self.tier}: {_GIVES[self.tier]}"
        return "code cannot be judged safely here: " + "; ".join(finding.detail for finding in self.findings)


_GIVES: dict[str, str] = {
    "A": "namespaces, seccomp and limits; own scratch directory, no network, no other processes",
    "B": "Landlock, seccomp and limits, without namespaces; programs cannot write files or start processes",
}


async def probe() -> Probe:
    """Starts each tier, runs the attacks of `attacks()` in it and ends it. A few tenths of a second."""
    findings = [await _try("A"), await _try("B")]
    best = next((finding.tier for finding in findings if finding.holds), None)
    return Probe(tier=best, findings=tuple(findings))


async def _try(tier: Tier) -> Finding:
    if sys.platform != "linux":
        return Finding(
            tier=tier, holds=False, detail=f"{platform.system()} has no such sandbox", way_out="Linux is needed"
        )
    sandbox = Sandbox(slots=1, tier=tier)
    try:
        await sandbox.start()
        await sandbox.run_inputs("print()", [b""], Limits())
    except (SandboxUnavailable, SandboxFault) as problem:
        step = str(problem).removeprefix(f"tier {tier}: ")
        way_out = next((way for name, way in _WAYS_OUT.items() if step.startswith(name)), "")
        return Finding(tier=tier, holds=False, detail=step, way_out=way_out)
    finally:
        sandbox.close()
    return Finding(tier=tier, holds=True, detail=_GIVES[tier])
