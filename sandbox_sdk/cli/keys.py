"""``keys``: the master key, and the keys that are kept under it."""

from __future__ import annotations

import shlex
from datetime import datetime
from functools import partial
from pathlib import Path

import click
from anyio import to_thread

from sandbox_sdk.cli.recording import recording
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.crypto_utils import KeyRing, MasterKey, Unlock, export_keys, list_keys
from sandbox_sdk.crypto_utils.key_files import LOCAL_KEY
from sandbox_sdk.crypto_utils.manifests import NAMESPACE
from sandbox_sdk.crypto_utils.masters import write_key_file
from sandbox_sdk.crypto_utils.wrapping import WrappedKey
from sandbox_sdk.errors import ConfigError, KeyNotFound, StateError
from sandbox_sdk.store.folders import StateFolders, state_error

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
@global_options
def keys() -> None:
    """Make, list, rotate, export and import encryption keys. None is ever printed."""


@keys.command()
@click.option(
    "--file", type=_FILE, help="Where to write it; by default keys/local.key in the state folder."
)
@global_options
def create(file: Path | None) -> None:
    """Make a random master key, in a new file that only you may read."""
    run(lambda session: _create(session, file))


async def _create(session: Session, file: Path | None) -> int:
    path = file or await _folder(session) / LOCAL_KEY
    key = MasterKey.generate()
    await to_thread.run_sync(_write_new, path, key)
    async with recording(session) as record:
        await record("keys.create", {"key": key.id, "file": str(path)})
    session.output.document({"file": str(path), "id": key.id})
    session.output.line(f"made the key {key.id} at {path}: keep a copy of the file")
    if file is not None:
        _tell_how_to_use(session, file)
    elif await to_thread.run_sync(session.settings.key_source.find):
        session.output.note("the master key that is configured goes before it")
    return 0


@keys.command("list")
@global_options
def list_() -> None:
    """List the keys that are kept, and the master that each is wrapped under."""
    run(_list)


async def _list(session: Session) -> int:
    found = await to_thread.run_sync(list_keys, await _folder(session))
    document = [
        {name: getattr(key, name) for name in ("kind", "name", "id", "created_at", "master_id")}
        for key in found
    ]
    session.output.document({"keys": document})
    if found:
        columns = ("kind", "name", "id", "created", "master")
        session.output.table(columns, map(_row, found))
    else:
        session.output.note("no key is kept yet")
    return 0


def _row(key: WrappedKey) -> tuple[str, ...]:
    created = datetime.fromtimestamp(key.created_at).astimezone()
    master = f"{key.master_id} {'key' if key.derivation is None else 'passphrase'}"
    return (key.kind, key.name, key.id, f"{created:%Y-%m-%d %H:%M:%S}", master)


@keys.command()
@click.option(
    "--to",
    "file",
    type=_FILE,
    help="A file with the new key or passphrase, made with a random key if it is missing; by "
    "default a new keys/local.key.",
)
@global_options
def rotate(file: Path | None) -> None:
    """Wrap every key under another master key; data that is sealed stays as it is.

    If it is interrupted, run it again.
    """
    run(lambda session: _rotate(session, file))


async def _rotate(session: Session, file: Path | None) -> int:
    ring = await _ring(session)
    new = await to_thread.run_sync(_new_master, session, file)
    async with recording(session) as record:
        await record("keys.rotate.began", {"file": file and str(file)})
        count = await to_thread.run_sync(ring.rotate, new)
        await record("keys.rotate.ended", {"outcome": "ok", "rewrapped": count})
    session.output.document({"rewrapped": count, "file": file and str(file)})
    session.output.line(f"wrapped {count} keys under the new master")
    if file is not None:
        _tell_how_to_use(session, file)
    return 0


def _new_master(session: Session, file: Path | None) -> Unlock | None:
    """Return the master to rotate to; ``None`` is a new ``local.key``."""
    if file is None:
        if session.settings.key_source.find() is None:
            return None
        line = "--to: the master key is configured: name the file of the new one, and set that then"
        raise ConfigError(line, faults=(line,))
    if not file.exists():
        _write_new(file, MasterKey.generate())
    return Unlock.read(file)


def _tell_how_to_use(session: Session, file: Path) -> None:
    session.output.line("to use it, set security.encryption_key_file, or")
    session.output.line(
        f"    export SANDBOX_ENCRYPTION_KEY_FILE={shlex.quote(str(file.absolute()))}"
    )


@keys.command()
@click.option(
    "--public",
    is_flag=True,
    help="Print the public key that verifies results, as a line of allowed_signers.",
)
@global_options
@click.argument("path", required=False, type=_FILE)
def export(path: Path | None, public: bool) -> None:
    """Write all keys into the new file PATH, still wrapped: only the master key opens them."""
    if public == (path is not None):
        raise click.UsageError("give a PATH, or --public")
    run(lambda session: _export_public(session) if path is None else _export(session, path))


async def _export(session: Session, path: Path) -> int:
    count = await to_thread.run_sync(export_keys, await _folder(session), path)
    async with recording(session) as record:
        await record("keys.export", {"exported": count, "file": str(path)})
    session.output.document({"exported": count, "file": str(path)})
    session.output.line(f"wrote {count} keys to {path}, wrapped as they are")
    return 0


async def _export_public(session: Session) -> int:
    ring = await _ring(session)
    key = (await to_thread.run_sync(ring.signing_key)).public
    line = f'sandbox-sdk namespaces="{NAMESPACE}" {key.to_text()}'
    session.output.document({"public_key": key.to_text(), "fingerprint": key.fingerprint})
    session.output.line(line)
    return 0


@keys.command("import")
@global_options
@click.argument("path", type=_FILE)
def import_(path: Path) -> None:
    """Take over the keys of PATH, which `keys export` wrote, whose master key is set here."""
    run(lambda session: _import(session, path))


async def _import(session: Session, path: Path) -> int:
    ring = await _ring(session)
    taken = await to_thread.run_sync(ring.import_keys, path)
    async with recording(session) as record:
        await record("keys.import", {"imported": len(taken), "file": str(path)})
    session.output.document({"imported": [key.file_name for key in taken]})
    session.output.line(f"took over {len(taken)} keys")
    return 0


async def _folder(session: Session) -> Path:
    folders = await to_thread.run_sync(StateFolders.open, session.settings.state_dir)
    return folders.keys


async def _ring(session: Session) -> KeyRing:
    """Return the keys.

    Raises:
        KeyNotFound: There is no master key.
    """
    opening = partial(KeyRing.open, await _folder(session), session.settings.key_source)
    if (ring := await to_thread.run_sync(opening)) is None:
        raise KeyNotFound(
            "there is no master key: make one with sandbox-sdk keys create, or set "
            "security.encryption_key_file"
        )
    return ring


def _write_new(path: Path, key: MasterKey) -> None:
    try:
        write_key_file(path, key)
    except FileExistsError:
        raise StateError(
            f"{path} exists and was not touched: use it, rotate it with sandbox-sdk keys rotate, "
            "or name another file"
        ) from None
    except OSError as error:
        raise state_error(error, f"the key file {path} cannot be written") from error
