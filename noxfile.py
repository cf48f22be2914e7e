"""Every check of the project; ``nox`` runs all that CI runs, ``nox -s NAME`` one of them."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = nox.project.python_versions(PROJECT)
EVERYTHING = ("-e", ".[local,bwrap,packages]")
"""The project with all that its tests need of it."""


def _runs(version: str) -> bool:
    """Whether this Python starts: a version manager's shim may be there without one behind it."""
    program = shutil.which(f"python{version}")
    return (
        program is not None and subprocess.run([program, "-V"], capture_output=True).returncode == 0
    )


APART = ("tests/unit", "tests/property", "tests/typing", "tests/contract")
"""Tests that do not mind others beside them."""
ALONE = ("tests/e2e", "tests/attacks", "tests/v2")
"""Tests that load the host, look for what is left on it, or break it in ways others would feel."""
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4")

PLAIN_USER = "sandbox-sdk-test"
"""Made by root for the session `plain_user`; its home holds all that is left of it."""
SYSTEM_PYTHONS = [f"/usr/bin/python{version}" for version in SUPPORTED]
PRESENT = [version for version in SUPPORTED if _runs(version)]


def _group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes (ruff)."""
    session.install(*_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def imports(session: nox.Session) -> None:
    """Who may import what (import-linter)."""
    session.install(*_group("lint"))
    session.run("lint-imports", "--no-logo")


@nox.session
def generate(session: nox.Session) -> None:
    """The blocking twin is what the generator writes; ``-- --write`` makes it so."""
    session.install(*_group("lint"))
    check = [] if "--write" in session.posargs else ["--check"]
    session.run("python", "sandbox_sdk_sync/_generate.py", *check)


@nox.session
def types(session: nox.Session) -> None:
    """Types (mypy and basedpyright, both strict)."""
    session.install("-e", ".", "nox", *_group("types"), *_group("test"))
    session.run("mypy")
    session.run("basedpyright")


@nox.session(python=PRESENT)
def tests(session: nox.Session) -> None:
    """All tests but the README's, on every supported Python of this machine."""
    if absent := ", ".join(version for version in SUPPORTED if version not in PRESENT):
        session.warn(f"not on this machine, and so not tested here: Python {absent}")
    session.install(*EVERYTHING, *_group("test"))
    # Chosen tests may all be among the others.
    codes = [0, 5] if session.posargs else [0]
    session.run("pytest", *SIDE_BY_SIDE, *APART, *session.posargs, success_codes=codes)
    alone = (*ALONE, "--ignore=tests/e2e/test_readme.py")
    session.run("pytest", *alone, *session.posargs, success_codes=codes)


@nox.session(venv_backend="none")
def plain_user(session: nox.Session) -> None:
    """As root: demo, contract and attacks once more, as a plain user with the system's Python."""
    if os.geteuid() != 0:
        session.skip("not root: as a plain user the session `tests` has run them")
    python = next((path for path in SYSTEM_PYTHONS if os.access(path, os.X_OK)), None)
    if python is None:
        session.error(f"none of {', '.join(SYSTEM_PYTHONS)} is there for a plain user to run")
    home = _plain_home(session)
    project, venv = home / "project", home / "venv"
    _copy_sources(session, project)
    session.chdir(project)

    def run(*command: str | Path) -> None:
        session.run(
            *("setpriv", f"--reuid={PLAIN_USER}", f"--regid={PLAIN_USER}", "--init-groups"),
            *map(str, command),
            env={"HOME": str(home), "USER": PLAIN_USER, "PATH": "/usr/bin:/bin", **_network()},
            include_outer_env=False,
            external=True,
        )

    run(python, "-m", "venv", venv)
    run(venv / "bin/python", "-m", "pip", "install", "--quiet", *EVERYTHING, *_group("test"))
    run(venv / "bin/sandbox-sdk", "demo", "--output", home / "results")
    contract = ("tests/contract", "-k", "not blocking")
    run(venv / "bin/pytest", *SIDE_BY_SIDE, *contract, *session.posargs)
    run(venv / "bin/pytest", "tests/attacks", "tests/e2e/test_walls_off.py", *session.posargs)


@nox.session
def readme(session: nox.Session) -> None:
    """What the README shows: its demo and its Python examples, run as they stand."""
    session.install(*EVERYTHING, *_group("test"))
    session.env["XDG_DATA_HOME"] = str(_data_folder(session))
    session.run("sandbox-sdk", "demo")
    session.run("pytest", "tests/e2e/test_readme.py", *session.posargs)


@nox.session(reuse_venv=False)
def build(session: nox.Session) -> None:
    """The wheel, installed into a clean environment, runs the demo."""
    place = Path(session.create_tmp()).resolve()
    shutil.rmtree(place)
    session.run("pip", "wheel", "--no-deps", "--wheel-dir", str(place), ".", silent=True)
    (wheel,) = place.glob("*.whl")
    session.install(f"{wheel}[local,bwrap]")
    session.env["XDG_DATA_HOME"] = str(_data_folder(session))
    session.chdir(place)  # away from the sources, which would be imported first
    session.run("python", "-c", "import sandbox_sdk; print(sandbox_sdk.SandboxClient)")
    session.run("sandbox-sdk", "demo")


@nox.session(default=False)
def cgroup_v2(session: nox.Session) -> None:
    """Control groups of version 2 under Debian's kernel, in QEMU; takes some two minutes.

    Needs Debian with qemu-system-x86 and busybox-static. The kernel is downloaded, not installed;
    SANDBOX_SDK_TEST_KERNEL may name the folder of an unpacked package instead.
    """
    session.install(*EVERYTHING, *_group("test"))
    kernel = os.environ.get("SANDBOX_SDK_TEST_KERNEL") or _debian_kernel(session)
    environment = {"SANDBOX_SDK_TEST_KERNEL": kernel}
    session.run("pytest", "-m", "machine", "tests/v2", *session.posargs, env=environment)


@nox.session(default=False)
def attacks(session: nox.Session) -> None:
    """Only the attacks on a sandbox; ``tests`` runs them too."""
    session.install(*EVERYTHING, *_group("test"))
    session.run("pytest", "tests/attacks", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """What is repeated for hours: sandboxes, killed owners and batches, tasks of a real model."""
    session.install(*EVERYTHING, *_group("test"))
    session.run("pytest", "-s", "-m", "soak", "tests/e2e", "tests/property", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Every benchmark, or those named, and one table: ``nox -s bench -- cold ready --write-docs``.

    References are measured where they are found: ``bwrap``, and peers on the ``PATH``.
    """
    session.install(*EVERYTHING, *_group("test"))
    session.run("python", "benchmarks", *session.posargs)


def _plain_home(session: nox.Session) -> Path:
    """Return the home of the plain user, who is made if missing."""
    try:
        return Path(pwd.getpwnam(PLAIN_USER).pw_dir)
    except KeyError:
        about = ("--system", "--user-group", "--create-home", "--shell", "/usr/sbin/nologin")
        session.run("useradd", *about, PLAIN_USER, external=True)
    return Path(pwd.getpwnam(PLAIN_USER).pw_dir)


def _copy_sources(session: nox.Session, target: Path) -> None:
    """Copy what git tracks, or would, to a folder of the plain user's."""
    git = ("git", "-c", "safe.directory=*")  # a clone that root tests may be another user's
    listed = subprocess.run(
        (*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    shutil.rmtree(target, ignore_errors=True)
    for name in filter(os.path.isfile, listed.stdout.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target / name)
    session.run("chown", "--recursive", f"{PLAIN_USER}:{PLAIN_USER}", str(target), external=True)


def _network() -> dict[str, str]:
    """The variables by which pip finds its index."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or name == "SSL_CERT_FILE"
    }


def _debian_kernel(session: nox.Session) -> str:
    """Return the folder of Debian's kernel for virtual machines, downloaded once."""
    folder = session.cache_dir.resolve() / "kernel"
    if not folder.exists():
        place = Path(session.create_tmp()).resolve()
        newest = subprocess.run(
            ("apt-cache", "depends", "linux-image-cloud-amd64"),
            capture_output=True,
            text=True,
            check=True,
        )
        (name,) = re.findall(r"Depends: (linux-image-\S+)", newest.stdout)
        with session.chdir(place):
            session.run("apt-get", "download", name, external=True)
        (package,) = place.glob(f"{name}_*.deb")
        session.run("dpkg-deb", "--extract", str(package), str(folder), external=True)
    return str(folder)


def _data_folder(session: nox.Session) -> Path:
    """A data folder shared by sessions, so that a model is fetched once."""
    folder = session.cache_dir.resolve() / "data"
    folder.mkdir(exist_ok=True)
    return folder
