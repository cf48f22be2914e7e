"""``models``: small models that run on this machine."""

from __future__ import annotations

import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.experiments.models.install import INSTALLABLE, install_model
from sandbox_sdk.values import MIB


@click.group()
@global_options
def models() -> None:
    """List and install models that run on this machine."""


@models.command("list")
@global_options
def list_() -> None:
    """List the models that are installed or can be."""
    run(_list)


async def _list(session: Session) -> int:
    folder = await session.models_dir()
    files = {path.stem: path for path in sorted(folder.glob("*.gguf"))}
    found = [
        {
            "model": f"local/{name}",
            "file": str(files[name]) if name in files else None,
            "licence": INSTALLABLE[name].licence if name in INSTALLABLE else None,
            "about": INSTALLABLE[name].about if name in INSTALLABLE else "",
        }
        for name in dict.fromkeys((*INSTALLABLE, *files))
    ]
    session.output.document({"models": found})
    session.output.table(
        ("model", "file", "licence", "about"),
        (
            (
                str(model["model"]),
                model["file"] or "not installed",
                model["licence"] or "unknown",
                model["about"] or "",
            )
            for model in found
        ),
    )
    return 0


@models.command()
@click.option("--force", is_flag=True, help="Fetch it even if it is there.")
@global_options
@click.argument("name")
def install(name: str, force: bool) -> None:
    """Fetch model NAME, check it, and keep it in the state folder."""
    run(lambda session: _install(session, name, force=force))


async def _install(session: Session, name: str, *, force: bool) -> int:
    folder = await session.models_dir()
    with session.output.working(f"installing {name}") as step:
        path = await install_model(name, folder, progress=step, force=force)
    size = f"{path.stat().st_size // MIB} MiB"
    session.output.document({"model": f"local/{name}", "file": str(path)})
    session.output.line(f"local/{name} is installed: {path} ({size})")
    return 0
