"""``verify``: whether exported results are as they were signed, and by whom."""

from __future__ import annotations

from pathlib import Path

import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.crypto_utils import Verification, VerifyKey, verify_folder
from sandbox_sdk.crypto_utils.key_files import read_public
from sandbox_sdk.crypto_utils.manifests import MANIFEST
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.store.folders import default_state_dir

_LARGEST_KEY_FILE = 65536


@click.command()
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    help="The signer's public key: a line, or a file of lines as in allowed_signers. "
    "May be given several times; without it, this state folder's own key counts.",
)
@global_options
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path, keys: tuple[str, ...]) -> None:
    """Check the exported results in the folder PATH, or in the folders below it.

    Exits with 0 only if every file is as a key that you trust signed it. A key that is found in
    the results themselves proves nothing: "unpinned".
    """
    run(lambda session: _verify(session, path, keys))


async def _verify(session: Session, path: Path, keys: tuple[str, ...]) -> int:
    trusted = _given(keys) if keys else _own(session)
    found = [verify_folder(folder, trusted) for folder in _folders(path)]
    for one in found:
        session.output.line(f"{one.status}: {one.folder}: {one.detail}")
    session.output.document({"verified": [_to_json(one) for one in found]})
    return 0 if all(one.ok for one in found) else 1


def _folders(path: Path) -> list[Path]:
    """Return the exports at a path: itself, or what lies in it."""
    if (path / MANIFEST).exists() or not path.is_dir():
        return [path]
    return sorted(below for below in path.iterdir() if below.is_dir()) or [path]


def _own(session: Session) -> list[VerifyKey]:
    """Return the key by which results of this state folder are signed, if it has one."""
    state = session.settings.state_dir or default_state_dir()
    own = read_public(state / "keys")
    return [] if own is None else [own]


def _given(keys: tuple[str, ...]) -> list[VerifyKey]:
    """Return the keys of the options, each a line or a file of lines."""
    return [key for given in keys for key in _read(given)]


def _read(given: str) -> list[VerifyKey]:
    if " " in given:
        return [VerifyKey.parse(given)]
    try:
        with Path(given).open("rb") as file:
            text = file.read(_LARGEST_KEY_FILE).decode("utf-8", "replace")
    except OSError as error:
        line = f"--key: {given} is neither a public key nor a file of them: {error.strerror}"
        raise ConfigError(line, faults=(line,)) from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        line = f"--key: {given} holds no public key"
        raise ConfigError(line, faults=(line,))
    return [VerifyKey.parse(line) for line in lines]


def _to_json(one: Verification) -> dict[str, object]:
    return {
        "folder": str(one.folder),
        "status": one.status,
        "signer": one.signer and one.signer.fingerprint,
        "wrong": one.wrong,
        "detail": one.detail,
    }
