"""Why this host refuses namespaces, and each distribution's exact fix."""

from __future__ import annotations

from pathlib import Path

import attrs

from sandbox_sdk.isolation.runtimes.bubblewrap import INSTALL

_PERSIST = "| sudo tee /etc/sysctl.d/60-sandbox-sdk.conf && sudo sysctl --system"
_MOST_NAMESPACES = 31_000

CONTAINER_FIX = (
    "start the container as a plain user with fewer masks: docker run --user 1000 --security-opt "
    "seccomp=unconfined --security-opt systempaths=unconfined ... (on a host with AppArmor also "
    "--security-opt apparmor=unconfined)"
)
"""What lets sandboxes be made inside a Docker or Podman container."""

_UBUNTU_FIX = (
    "use the distribution's bwrap and load its AppArmor profile: sudo apt install bubblewrap "
    "apparmor-profiles && sudo install -m 0644 "
    "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && sudo "
    "apparmor_parser -r /etc/apparmor.d/bwrap-userns-restrict (from Ubuntu 25.04 on, sudo apt "
    "install bubblewrap is enough). The profile covers /usr/bin/bwrap, never the one from pip"
)
_PROC_FIX = f"{CONTAINER_FIX}; in LXC or Incus: incus config set NAME security.nesting=true"


@attrs.frozen
class Cause:
    """Why something is refused.

    Attributes:
        reason: What refuses it.
        fix: What a person can do about it.
    """

    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}. To mend it: {self.fix}"


def find_cause(root: Path = Path("/")) -> Cause:
    """Return what on this host refuses user namespaces, or the usual place to look for it.

    Args:
        root: Below which ``proc`` lies.
    """
    sysctl = root / "proc/sys"
    if _is_chroot(root):
        return Cause(
            "this process runs in a chroot, where the kernel makes no user namespaces",
            "run it outside the chroot, or enter the tree with systemd-nspawn or bwrap instead",
        )
    if _read(sysctl / "user/max_user_namespaces") == "0":
        return Cause(
            "the setting user.max_user_namespaces is 0",
            f"echo user.max_user_namespaces={_MOST_NAMESPACES} {_PERSIST}",
        )
    if _read(sysctl / "kernel/unprivileged_userns_clone") == "0":
        return Cause(
            "the setting kernel.unprivileged_userns_clone is 0 (Debian's kernels have it)",
            f"echo kernel.unprivileged_userns_clone=1 {_PERSIST}",
        )
    filtered = "Seccomp:\t2" in _read(root / "proc/self/status")
    if filtered and _is_container(root):
        return Cause("the system call filter of this container refuses them", CONTAINER_FIX)
    if _read(sysctl / "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return Cause(
            "AppArmor restricts user namespaces to programs with a profile (Ubuntu since 23.10)",
            _UBUNTU_FIX,
        )
    if filtered:
        return Cause(
            "a system call filter that this process inherited refuses them",
            "if systemd started it, remove RestrictNamespaces= and SystemCallFilter= from its unit",
        )
    if not (sysctl / "user/max_user_namespaces").exists():
        return Cause(
            "this kernel has no user namespaces", "boot a kernel that has CONFIG_USER_NS=y"
        )
    return Cause(
        "the kernel refuses them, and no setting known here says why",
        "look for a denial by AppArmor or SELinux: sudo dmesg | grep -i denied; in a container, "
        f"{CONTAINER_FIX}; a chroot has none",
    )


def explain_launch_failure(stderr: str, root: Path = Path("/")) -> str | None:
    """Return why a runtime's program failed and the fix, or ``None`` if its words are unknown.

    Args:
        stderr: What ``bwrap`` wrote.
        root: Below which ``proc`` lies.
    """
    if "setuid mode" in stderr or "setuid user" in stderr:
        return str(Cause("bwrap is installed setuid root", 'sudo chmod u-s "$(command -v bwrap)"'))
    if "Unknown option" in stderr:
        return str(Cause("bwrap is older than 0.8.0", INSTALL))
    if "Can't mount proc" in stderr:
        return str(Cause("parts of /proc are masked, so no new one may be mounted", _PROC_FIX))
    if any(words in stderr for words in _NAMESPACE_WORDS):
        if "ENOSPC" in stderr and _read(root / "proc/sys/user/max_user_namespaces") != "0":
            return str(
                Cause(
                    "as many namespaces exist as are allowed, or they are nested too deep",
                    f"echo user.max_user_namespaces={_MOST_NAMESPACES} {_PERSIST}",
                )
            )
        return str(find_cause(root))
    return None


_NAMESPACE_WORDS = (
    "No permissions to creat",  # both of its wordings
    "Creating new namespace failed",
    "setting up uid map",
    "setting up gid map",
    "loopback: Failed",
    "Failed to make / slave",
    "max_user_namespaces",
    "pivot_root",
)


def _is_chroot(root: Path) -> bool:
    """Whether no mount stands at ``/``: those above a chroot's root are not listed."""
    lines = _read(root / "proc/self/mountinfo").splitlines()
    return bool(lines) and not any(line.split()[4] == "/" for line in lines)


def _is_container(root: Path) -> bool:
    return (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()


def _read(path: Path) -> str:
    """A kernel's file as text; empty where this kernel or its masks do not show it."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
