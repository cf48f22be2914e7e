"""``template``: Python environments for sandboxes, built ahead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.values import MIB, TemplateInfo
from sandbox_sdk.wire import to_json

_SHORT = 60


@click.group()
@global_options
def template() -> None:
    """Build, list, verify and remove Python environments for sandboxes."""


@template.command()
@click.option("--name", help="A name to ask for it by.")
@click.option(
    "--preload",
    metavar="MODULE",
    multiple=True,
    help="Import MODULE before a sandbox of that name starts; may be given several times.",
)
@click.option(
    "-r",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the packages from a requirements.txt or pylock.toml.",
)
@global_options
@click.argument("packages", metavar="PACKAGE...", nargs=-1)
def build(
    packages: tuple[str, ...], file: Path | None, name: str | None, preload: tuple[str, ...]
) -> None:
    """Build a template with each PACKAGE, such as numpy or "numpy==2.*", and nothing else."""
    if bool(packages) == bool(file):
        raise click.UsageError("give packages, or -r and a file of them")
    run(lambda session: _build(session, file or packages, name, preload))


async def _build(
    session: Session, packages: Path | tuple[str, ...], name: str | None, preload: tuple[str, ...]
) -> int:
    async with session.client() as client:
        with session.output.working("building a template") as step, _steps_to(step):
            info = await client.build_template(packages, name=name, preload=preload)
    session.output.document({"template": to_json(info)})
    session.output.line(f"{info.key} is ready: {len(info.versions)} packages, {_size(info)}")
    for version in info.versions:
        session.output.line(f"    {version}")
    return 0


@template.command("list")
@global_options
def list_() -> None:
    """List the templates that are built, oldest first."""
    run(_list)


async def _list(session: Session) -> int:
    async with session.client() as client:
        infos = await client.list_templates()
    session.output.document({"templates": [to_json(info) for info in infos]})
    if infos:
        columns = ("key", "name", "packages", "python", "size", "used last")
        session.output.table(columns, map(_row, infos))
    else:
        session.output.note("no template is built; python and host are always there")
    return 0


@template.command()
@global_options
@click.argument("key")
def verify(key: str) -> None:
    """Read every file of template KEY, a key or name, and compare their digest."""
    run(lambda session: _verify(session, key))


async def _verify(session: Session, key: str) -> int:
    async with session.client() as client:
        with session.output.working(f"reading template {key}"):
            info = await client.verify_template(key)
    session.output.document({"template": to_json(info)})
    session.output.line(f"{info.key} is what was built: {info.files} files, {_size(info)}")
    return 0


@template.command()
@global_options
@click.argument("key")
def remove(key: str) -> None:
    """Remove template KEY, a key or name, for good, unless a client uses it."""
    run(lambda session: _remove(session, key))


async def _remove(session: Session, key: str) -> int:
    async with session.client() as client:
        info = await client.remove_template(key)
    session.output.document({"removed": to_json(info)})
    session.output.line(f"removed {info.key}")
    return 0


def _row(info: TemplateInfo) -> tuple[str, ...]:
    packages = ", ".join(line.split(" --hash", 1)[0] for line in info.packages)
    used = "never"
    if info.used_at is not None:
        used = f"{datetime.fromtimestamp(info.used_at).astimezone():%Y-%m-%d %H:%M:%S}"
    shown = packages if len(packages) <= _SHORT else f"{packages[:_SHORT]} ..."
    return (info.key, ", ".join(info.names), shown, info.python, _size(info), used)


def _size(info: TemplateInfo) -> str:
    return f"{info.size_bytes / MIB:.1f} MiB"


@contextmanager
def _steps_to(step: Callable[[str], None]) -> Generator[None]:
    """Tell the steps that a build logs."""

    class Steps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            step(str(getattr(record, "step", record.getMessage())))

    log = logging.getLogger("sandbox_sdk.templates")
    handler, level = Steps(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
