"""What a sandbox sees of this host: system folders, the interpreter, its packages; read-only."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path

from sandbox_sdk.isolation.runtimes.base import INSIDE_UID, WORKSPACE, View
from sandbox_sdk.values import Mount

_FOLDERS = ("/usr",)
_MAYBE_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
)

PYTHON, VENV, SITE, AGENT = "/opt/python", "/opt/venv", "/opt/site", "/opt/agent"
"""Where the interpreter, its environment, its packages and the agent are shown."""

GUEST_ENV = {
    "PATH": f"{VENV}/bin:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own tmpfs
    "TMPDIR": "/tmp",  # noqa: S108
    "USER": "sandbox",
    "LANG": "C.UTF-8",
    "PWD": WORKSPACE,
    "MPLBACKEND": "Agg",  # matplotlib then draws to files and never looks for a screen
}
"""The environment of code inside, before the user's ``env``; nothing of it is the host's."""


def host_view(agent: Path) -> View:
    """Return the view of template ``host``: this interpreter and all its packages.

    Args:
        agent: The agent's folder on the host.
    """
    mounts = [Mount(source=Path(path), target=path) for path in _FOLDERS]
    links: dict[str, str] = {}
    for name in _MAYBE_LINKS:
        path = Path(name)
        if path.is_symlink():
            links[name] = os.readlink(path)
        elif path.is_dir():
            mounts.append(Mount(source=path, target=name))
    mounts += [Mount(source=Path(path), target=path) for path in _ETC if os.path.exists(path)]

    base = Path(sys.base_prefix).resolve()
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    shown: dict[Path, str] = {Path("/usr"): "/usr"}
    if not base.is_relative_to("/usr"):
        mounts.append(Mount(source=base, target=PYTHON))
        shown[base] = PYTHON
    python = _inside(executable, shown)
    packages: list[str] = []
    for folder in _package_folders():
        if (inside := _inside(folder, shown)) is None:
            inside = f"{SITE}/{len(packages)}"
            mounts.append(Mount(source=folder, target=inside))
        packages.append(inside)
    mounts.append(Mount(source=agent, target=AGENT))
    if python is None:
        raise FileNotFoundError(f"interpreter {executable} lies outside its prefix {base}")

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    venv_site = f"{VENV}/lib/{version}/site-packages"
    for name in ("python", "python3", version):
        links[f"{VENV}/bin/{name}"] = python
    return View(
        mounts=tuple(mounts),
        links=links,
        texts={
            "/etc/passwd": f"sandbox:x:{INSIDE_UID}:{INSIDE_UID}::{WORKSPACE}:/bin/bash\n",
            "/etc/group": f"sandbox:x:{INSIDE_UID}:\n",
            "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
            "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
            f"{VENV}/pyvenv.cfg": f"home = {os.path.dirname(python)}\n"
            "include-system-site-packages = false\n",
            f"{venv_site}/sandbox.pth": "".join(
                f"import site; site.addsitedir({folder!r})\n" for folder in packages
            ),
        },
        python=python,
        agent=AGENT,
        env=_library_path(base, shown),
        site=(venv_site,),
    )


def _package_folders() -> list[Path]:
    folders = [
        *site.getsitepackages(),
        *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    ]
    found = [Path(folder).resolve() for folder in folders if os.path.isdir(folder)]
    return list(dict.fromkeys(found))


def _inside(path: Path, shown: dict[Path, str]) -> str | None:
    """Return where a host path can be seen inside, or ``None``."""
    for source, target in shown.items():
        if path.is_relative_to(source):
            return str(Path(target) / path.relative_to(source))
    return None


def _library_path(base: Path, shown: dict[Path, str]) -> dict[str, str]:
    """A shared libpython is found by its host path, which does not exist inside."""
    if base in shown and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return {"LD_LIBRARY_PATH": f"{PYTHON}/lib"}
    return {}
