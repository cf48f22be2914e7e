"""What a sandbox sees of this host, read-only: system folders, the interpreter, some packages."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

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
"""Where the interpreter, its environment, the host's packages and the agent are shown."""

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The name of the interpreter with its version, as in the names of its folders."""

VENV_SITE = f"{VENV}/lib/{VERSION}/site-packages"
"""The packages of the environment."""

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


_ETC_TEXTS = {
    "/etc/passwd": f"sandbox:x:{INSIDE_UID}:{INSIDE_UID}::{WORKSPACE}:/bin/bash\n",
    "/etc/group": f"sandbox:x:{INSIDE_UID}:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def python_view(agent: Path, *, empty: Path) -> View:
    """Return the view of template ``python``: this interpreter and its standard library.

    Args:
        agent: The agent's folder on the host.
        empty: An empty folder, shown where the interpreter has packages of its own.
    """
    host = _Host.look()
    links, texts = bare_venv(VENV, host.python, packages=())
    return host.view(agent, mounts=host.masks(empty), links=links, texts=texts)


def host_view(agent: Path) -> View:
    """Return the view of template ``host``: this interpreter and all its packages.

    Args:
        agent: The agent's folder on the host.
    """
    host = _Host.look()
    mounts: list[Mount] = []
    packages: list[str] = []
    for folder in _package_folders():
        if (inside := _inside(folder, host.shown)) is None:
            inside = f"{SITE}/{len(packages)}"
            mounts.append(Mount(source=folder, target=inside))
        packages.append(inside)
    links, texts = bare_venv(VENV, host.python, packages)
    return host.view(agent, mounts=mounts, links=links, texts=texts, packages=packages)


def packages_view(agent: Path, *, venv: Path, empty: Path) -> View:
    """Return the view of a built template: this interpreter and the packages of one environment.

    Args:
        agent: The agent's folder on the host.
        venv: The environment's folder, whose links already lead to ``interpreter()``.
        empty: An empty folder, shown where the interpreter has packages of its own.
    """
    host = _Host.look()
    mounts = [*host.masks(empty), Mount(source=venv, target=VENV)]
    return host.view(agent, mounts=mounts, packages=(VENV_SITE,))


def interpreter() -> str:
    """Return the path of this interpreter inside every sandbox.

    Raises:
        FileNotFoundError: It lies outside its own prefix, which is all that is shown of it.
    """
    return _Host.look().python


@attrs.frozen(kw_only=True)
class _Host:
    """What every view has of this host.

    Attributes:
        mounts: System folders and the interpreter.
        links: System folders that are symbolic links.
        shown: Host folder -> where its content is seen inside.
        python: The interpreter's path inside.
        env: What the interpreter needs in its environment.
    """

    mounts: tuple[Mount, ...]
    links: Mapping[str, str]
    shown: Mapping[Path, str]
    python: str
    env: Mapping[str, str]

    @classmethod
    def look(cls) -> _Host:
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
        if python is None:
            raise FileNotFoundError(f"interpreter {executable} lies outside its prefix {base}")
        env = _library_path(base, shown)
        return cls(mounts=tuple(mounts), links=links, shown=shown, python=python, env=env)

    def masks(self, empty: Path) -> list[Mount]:
        """Cover the packages that the interpreter itself has."""
        folders = {Path(folder).resolve() for folder in site.getsitepackages([sys.base_prefix])}
        found = [_inside(folder, self.shown) for folder in sorted(folders) if folder.is_dir()]
        return [Mount(source=empty, target=inside) for inside in found if inside is not None]

    def view(
        self,
        agent: Path,
        *,
        mounts: Iterable[Mount],
        links: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
        packages: Iterable[str] = (),
    ) -> View:
        return View(
            mounts=(*self.mounts, *mounts, Mount(source=agent, target=AGENT)),
            links={**self.links, **(links or {})},
            texts={**_ETC_TEXTS, **(texts or {})},
            python=self.python,
            agent=AGENT,
            env=self.env,
            site=(VENV_SITE,),
            packages=tuple(packages),
            venv=VENV,
        )


def bare_venv(
    folder: str, python: str, packages: Iterable[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the links and files of an environment that adds folders of packages, or none."""
    links = {f"{folder}/bin/{name}": python for name in ("python", "python3", VERSION)}
    texts = {f"{folder}/pyvenv.cfg": pyvenv_cfg(python)}
    if added := "".join(f"import site; site.addsitedir({path!r})\n" for path in packages):
        texts[f"{folder}/lib/{VERSION}/site-packages/sandbox.pth"] = added
    return links, texts


def pyvenv_cfg(python: str) -> str:
    """Return the ``pyvenv.cfg`` of an environment of the interpreter at this path inside."""
    return f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n"


def _package_folders() -> list[Path]:
    folders = [
        *site.getsitepackages(),
        *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    ]
    found = [Path(folder).resolve() for folder in folders if os.path.isdir(folder)]
    return list(dict.fromkeys(found))


def _inside(path: Path, shown: Mapping[Path, str]) -> str | None:
    """Return where a host path can be seen inside, or ``None``."""
    for source, target in shown.items():
        if path.is_relative_to(source):
            return str(Path(target) / path.relative_to(source))
    return None


def _library_path(base: Path, shown: Mapping[Path, str]) -> dict[str, str]:
    """A shared libpython is found by its host path, which does not exist inside."""
    if base in shown and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return {"LD_LIBRARY_PATH": f"{PYTHON}/lib"}
    return {}
