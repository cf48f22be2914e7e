"""What sandboxes are measured beside: bare processes, bubblewrap, and peers where installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.measure import Case, Failed, Measure, Run
from bench.world import ANSWER, PROGRAM, first_line
from sandbox_sdk.isolation.runtimes.bubblewrap import find

FORK = "bare fork, numpy imported"
BWRAP = "bwrap + python + numpy"
PLAIN = "python + numpy, no sandbox"
IMAGE = "BENCHMARK_DOCKER_IMAGE"
"""Names a local image with python3 and numpy, for docker's row; none is pulled."""

PEER_EVERY = 10
"""Peers are slow, and not what is promised of: they have their turn in every tenth round."""

_FORKS = """
import os, sys, numpy
for line in sys.stdin:
    if os.fork() == 0:
        exec(line)
        os._exit(0)
    os.wait()
"""

_RESIDENT = """
import sys
for line in sys.stdin:
    print(eval(line), flush=True)
"""


def blocking(measure: Callable[[], float]) -> Measure:
    """Return a case's measure that blocks the loop: nothing else may run meanwhile."""

    async def run() -> float:
        return measure()

    return run


def command(argv: Sequence[str], answer: str = ANSWER, **env: str) -> Callable[[], float]:
    """Return what times a program from its start to its end and checks what it printed."""

    def run() -> float:
        began = time.perf_counter()
        ran = subprocess.run(argv, env={"PATH": os.environ["PATH"], **env}, capture_output=True)
        seconds = time.perf_counter() - began
        if ran.returncode or ran.stdout.decode().strip() != answer:
            said = " ".join((ran.stderr or ran.stdout).decode("utf-8", "replace").split())
            raise Failed(f"{Path(argv[0]).name}: exit code {ran.returncode}: {said[:200]}")
        return seconds

    return run


@contextmanager
def forks(site: Path) -> Generator[Callable[[], float]]:
    """Give what times a statement in a fork of a Python that has imported numpy: the floor."""
    with _server(_FORKS, PROGRAM, ANSWER, PYTHONPATH=str(site)) as ask:
        yield ask


@contextmanager
def resident() -> Generator[Callable[[], float]]:
    """Give what times a line to a plain Python that evaluates it, and its answer, over pipes."""
    with _server(_RESIDENT, "1", "1") as ask:
        yield ask


@contextmanager
def _server(program: str, question: str, answer: str, **env: str) -> Generator[Callable[[], float]]:
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=env) as server:
        requests, answers = server.stdin, server.stdout
        if requests is None or answers is None:
            raise AssertionError("both are pipes")

        def run() -> float:
            began = time.perf_counter()
            requests.write(f"{question}\n")
            requests.flush()
            said = answers.readline().strip()
            seconds = time.perf_counter() - began
            if said != answer:
                raise Failed(f"{said!r} instead of {answer}")
            return seconds

        yield run


def bubblewrap(site: Path) -> Callable[[], float]:
    """Return what times bubblewrap, an interpreter in it, and the import of numpy."""
    return command([*_bwrap(site), "--setenv", "PYTHONPATH", str(site), *_python()])


def bubblewrap_true() -> Callable[[], float]:
    """Return what times bubblewrap around the smallest program."""
    return command([*_bwrap(Path("/usr")), "true"], answer="")


def _bwrap(site: Path) -> list[str]:
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    options += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in _shown(site):
        options += ["--ro-bind", folder, folder]
    return [str(find()), *options]


def plain(site: Path) -> Callable[[], float]:
    """Return what times a plain interpreter and the import of numpy."""
    return command(_python(), PYTHONPATH=str(site))


@contextmanager
def peers(run: Run, site: Path) -> Generator[list[Case]]:
    """Give a case for every peer that is installed and runs; the others are told as absent."""
    commands = {
        "nsjail": _nsjail,
        "kern box": _kern,
        "srt": _srt,
        "docker run": _docker,
    }
    found: list[Case] = []
    with ExitStack() as stack:
        for label, argv_for in commands.items():
            program = _which(label.split()[0])
            if program is None:
                run.absent[label] = "not installed"
                continue
            measure = command(argv_for(program, site, run.state), HOME=str(Path.home()))
            try:
                measure()
            except Failed as error:
                # What it wrote names this machine's folders.
                how = ": ".join(str(error).split(": ")[:2])
                run.absent[label] = f"installed, but does not run here: {how}"
                continue
            found.append(Case(label=label, measure=blocking(measure), every=PEER_EVERY))
        label = "llm-sandbox (open session, no numpy)"
        if importlib.util.find_spec("llm_sandbox") is None:
            run.absent[label] = "not installed"
        else:
            try:
                measure = stack.enter_context(_llm_sandbox())
            except Exception as error:  # noqa: BLE001 - of a foreign library, which may raise any
                run.absent[label] = f"installed, but does not run here: {first_line(error)}"
            else:
                found.append(Case(label=label, measure=blocking(measure), every=PEER_EVERY))
        yield found


@contextmanager
def _llm_sandbox() -> Generator[Callable[[], float]]:
    library: Any = importlib.import_module("llm_sandbox")
    with library.SandboxSession(backend="bubblewrap", lang="python") as session:

        def run() -> float:
            began = time.perf_counter()
            said = session.run(f"print({ANSWER})").stdout.strip()
            if said != ANSWER:
                raise Failed(f"{said!r} instead of {ANSWER}")
            return time.perf_counter() - began

        run()
        yield run


def _nsjail(program: str, site: Path, state: Path) -> list[str]:
    options = ["-Mo", "-Q", "--chroot", "/", "--env", f"PYTHONPATH={site}"]
    if os.geteuid() == 0:
        options += ["--user", "99999", "--group", "99999"]
    return [program, *options, "--", *_python()]


def _kern(program: str, site: Path, state: Path) -> list[str]:
    root = state / "kern-root"
    for folder in ("proc", "sys", "dev", "etc", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    options = ["--rm", "--env", f"PYTHONPATH={site}"]
    for shown in _shown(site):
        options += ["--volume", f"{shown}:{shown}:ro"]
    return [
        program,
        "box",
        f"bench-{os.getpid()}",
        "--rootfs",
        str(root),
        *options,
        "--",
        *_python(),
    ]


def _srt(program: str, site: Path, state: Path) -> list[str]:
    return [program, "-c", f"PYTHONPATH={site} {sys.executable} -c '{PROGRAM}'"]


def _docker(program: str, site: Path, state: Path) -> list[str]:
    image = os.environ.get(IMAGE, f"no-image-named-by-{IMAGE}".lower())
    return [
        program,
        "run",
        "--rm",
        "--pull=never",
        "--network=none",
        image,
        "python3",
        "-c",
        PROGRAM,
    ]


def _python() -> list[str]:
    return [sys.executable, "-c", PROGRAM]


def _shown(site: Path) -> list[str]:
    """Return the folders that this interpreter and numpy need, none below another."""
    system = [folder for folder in ("/usr", "/lib", "/lib64", "/bin") if os.path.isdir(folder)]
    needed = [*system, sys.base_prefix, sys.prefix, str(site)]
    return [
        folder
        for number, folder in enumerate(needed)
        if not any(Path(folder).is_relative_to(other) for other in needed[:number])
    ]


def _which(program: str) -> str | None:
    """Find a program beside this interpreter, or on the ``PATH``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return shutil.which(program, path=path)
