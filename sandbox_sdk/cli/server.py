"""``server``: makes a state folder a server's, and prints what its clients need."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

import click
from anyio import to_thread

from sandbox_sdk.cli.administering import administering
from sandbox_sdk.cli.recording import recording
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.crypto_utils.identities import WORKER, identity
from sandbox_sdk.crypto_utils.keys import VerifyKey
from sandbox_sdk.store.folders import StateFolders

SOCKET = Path("server", "server.sock")
"""Where a server listens that is told nothing else, below its state folder."""


@click.group()
@global_options
def server() -> None:
    """Make this state folder a server's; `serve` runs it, and `admin` says who may use it."""


@server.command()
@global_options
def init() -> None:
    """Make the server's keys and one admin API key, which is shown this once.

    With --endpoint, the lines for clients name that address. A state folder that is a server's
    already is refused, and nothing of it is touched.
    """
    run(_init)


async def _init(session: Session) -> int:
    # Imported on use, as in every command about credentials: the others need none of it.
    from sandbox_sdk.auth.authority import Authority

    folders = await to_thread.run_sync(StateFolders.open, session.settings.state_dir)
    worker = await _worker(folders)
    made = await Authority.init(session.settings.state_dir)
    async with recording(session) as record:
        await record("server.init", {"key": made.info.id, "worker": worker.fingerprint})
    endpoint = session.settings.endpoint or f"unix://{folders.root / SOCKET}"
    document = {
        "state_dir": str(folders.root),
        "key": made.info.id,
        "api_key": made.secret,
        **_shown(worker),
        "endpoint": endpoint,
    }
    session.output.document(document)
    session.output.line(f"made the keys of a server in {folders.root}: back it up as a secret")
    session.output.line(f"worker: {worker.fingerprint}")
    session.output.line(f"admin API key {made.info.id}, which is shown this once:")
    session.output.line(f"    {made.secret}")
    session.output.line("its clients set")
    session.output.line(f"    export SANDBOX_ENDPOINT={shlex.quote(endpoint)}")
    session.output.line(f"    export SANDBOX_API_KEY={made.secret}")
    session.output.line(f"    export SANDBOX_WORKER_KEY={shlex.quote(worker.to_text())}")
    return 0


@server.command()
@global_options
def fingerprint() -> None:
    """Print the worker's public key, as SANDBOX_WORKER_KEY takes it, and its fingerprint."""
    run(_fingerprint)


async def _fingerprint(session: Session) -> int:
    folders = await to_thread.run_sync(StateFolders.open, session.settings.state_dir)
    worker = await _worker(folders)
    session.output.document(_shown(worker))
    session.output.line(worker.to_text())
    session.output.note(f"{worker.fingerprint} of {folders.root}")
    return 0


@server.command()
@click.option(
    "--forget",
    is_flag=True,
    help="Refuse at once what the old key signed, as after a theft.",
)
@global_options
def rotate(forget: bool) -> None:
    """Make a new key that signs access tokens; a running server takes it within a second."""
    run(lambda session: _rotate(session, forget))


async def _rotate(session: Session, forget: bool) -> int:
    async with administering(session) as admin, recording(session) as record:
        made = await admin.rotate_signing_key(forget=forget)
        await record("server.rotate", {"key": made, "forget": forget})
    session.output.document({"signing_key": made})
    session.output.line(f"made the signing key {made}")
    return 0


@server.command()
@global_options
@click.argument("path", type=click.Path(path_type=Path))
def backup(path: Path) -> None:
    """Copy records, credentials, keys and audit log into the new folder PATH, while it serves.

    The folder is a state folder: to restore it, serve it. Keep it as a secret.
    """
    run(lambda session: _backup(session, path.absolute()))


async def _backup(session: Session, path: Path) -> int:
    from sandbox_sdk.server.backup import back_up

    folders = await to_thread.run_sync(StateFolders.open, session.settings.state_dir)
    async with recording(session) as record:
        await record("server.backup", {"path": str(path)})
        count = await to_thread.run_sync(back_up, folders, path)
    session.output.document({"path": str(path), "files": count})
    session.output.line(f"wrote {count} files to {path}: keep it as a secret")
    return 0


async def _worker(folders: StateFolders) -> VerifyKey:
    """Return the public half of the key by which clients know the worker."""
    return (await to_thread.run_sync(partial(identity, folders.keys, WORKER))).public


def _shown(worker: VerifyKey) -> dict[str, str]:
    return {"worker_key": worker.to_text(), "fingerprint": worker.fingerprint}
