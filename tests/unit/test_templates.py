"""Templates are built once, by real uv from wheels made here, and are what they were built as."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import attrs
import host
import pytest
from anyio.to_thread import run_sync
from wheels import configure, make_wheel, only_index

from sandbox_sdk.config import Settings
from sandbox_sdk.engine import index_settings, templates
from sandbox_sdk.engine.template_store import KEY, Named
from sandbox_sdk.engine.templates import Template, Templates, key_of
from sandbox_sdk.errors import ConfigError, SandboxError, StateError, TemplateError
from sandbox_sdk.spec import parse_spec
from sandbox_sdk.values import SandboxSpec

pytestmark = pytest.mark.anyio

TINY = ("tiny",)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all of uv's index; it has the wheel of ``tiny``."""
    links = only_index(tmp_path, monkeypatch)
    make_wheel(links)
    return links


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    return tmp_path / "templates"


@pytest.fixture
async def kept(folder: Path) -> AsyncGenerator[Templates, None]:
    found = Templates(folder)
    yield found
    found.release()


@contextmanager
def steps() -> Generator[list[str]]:
    """The steps that builds tell."""
    told: list[str] = []

    class Steps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.__dict__["step"])

    handler = Steps()
    templates.log.addHandler(handler)
    templates.log.setLevel(logging.INFO)
    yield told
    templates.log.removeHandler(handler)


@contextmanager
def silent_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[socket.socket]:
    """An index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        configure(tmp_path, monkeypatch, f'index-url = "http://127.0.0.1:{port}/simple"\n')
        server.settimeout(10)
        yield server


async def test_what_is_built_is_told_and_is_read_only(index: Path, kept: Templates) -> None:
    make_wheel(index, "other", requires="tiny==1.0")
    info = await kept.build(("other",))
    assert (info.key, info.packages) == (key_of(("other",)), ("other",))
    assert info.versions == ("other==1.0", "tiny==1.0")
    venv = kept.store.venv(info.key)
    files = [path for path in venv.rglob("*") if not path.is_symlink()]
    assert not [path for path in (venv, *files) if path.stat().st_mode & 0o222]
    assert info.files == sum(path.is_file() or path.is_symlink() for path in venv.rglob("*"))
    assert list(venv.rglob("tiny.*.pyc"))
    assert kept.store.list() == (info,)
    assert kept.store.verify(info.key) == info


async def test_nothing_of_it_tells_where_it_was_built(
    index: Path, kept: Templates, tmp_path: Path
) -> None:
    info = await kept.build(TINY)
    venv = kept.store.venv(info.key)
    telling = [
        path
        for path in venv.rglob("*")
        if path.is_file() and os.fsencode(tmp_path) in path.read_bytes()
    ]
    assert not telling


async def test_a_file_changed_in_uvs_cache_changes_no_template(
    index: Path, kept: Templates, tmp_path: Path
) -> None:
    """What uv shares by hard links with its cache would be writable through it."""
    info = await kept.build(TINY)
    (module,) = kept.store.venv(info.key).rglob("tiny.py")
    assert module.stat().st_nlink == 1


async def test_a_template_is_built_once(index: Path, kept: Templates) -> None:
    with steps() as told:
        first = await kept.build(TINY)
        again = await kept.build(TINY)
    assert first == again
    assert told.count("compiling") == 1


async def test_two_that_build_the_same_wait_for_each_other(index: Path, folder: Path) -> None:
    """A lock of one open file holds against another one, in the same process or not."""
    infos = []
    with steps() as told:

        async def build() -> None:
            infos.append(await Templates(folder).build(TINY))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(build)
    assert len(set(infos)) == 1
    assert len(infos) == 4
    assert told.count("compiling") == 1
    assert told.count("waiting for another process, which builds this template") == 3


async def test_whoever_waits_for_a_builder_that_fails_builds_itself(
    index: Path, kept: Templates
) -> None:
    lock = kept.store.claim(key_of(TINY))
    assert lock is not None
    with steps() as told:
        async with anyio.create_task_group() as group:
            group.start_soon(kept.build, TINY)
            assert await host.soon(lambda: any("waiting" in step for step in told))
            os.close(lock)  # as the kernel does at a builder's death
    assert kept.store.info(key_of(TINY)).versions == ("tiny==1.0",)


async def test_keys_differ_by_what_is_asked_and_not_by_its_order() -> None:
    assert key_of(("a", "b")) != key_of(("a",)) != key_of(("a==1",))
    assert KEY.fullmatch(key_of(()))


async def test_no_uv_is_told_with_the_way_to_it(
    kept: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TemplateError, match=r"sandbox-sdk\[packages\]"):
        await kept.build(TINY)
    assert not kept.store.place(key_of(TINY)).exists()


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (("no-such-package",), "look at the names and versions"),
        (("tiny==7",), "look at the names and versions"),
        ((f"tiny==1.0 --hash=sha256:{'0' * 64}",), "not the one that was locked"),
        (("sourceonly",), "takes wheels only"),
    ],
)
async def test_what_cannot_be_had_is_told_with_what_to_do(
    index: Path, kept: Templates, packages: tuple[str, ...], said: str
) -> None:
    (index / "sourceonly-1.0.tar.gz").write_bytes(b"never unpacked")
    with pytest.raises(TemplateError, match=said) as caught:
        await kept.build(packages)
    assert caught.value.output
    assert caught.value.output in caught.value.message
    assert not list(kept.store.place(key_of(packages)).parent.glob("unfinished-*"))


async def test_no_network_is_told(
    tmp_path: Path, kept: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, 'index-url = "http://me:secret@127.0.0.1:9/simple"\n')
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(TemplateError, match="the index did not answer") as caught:
        await kept.build(TINY)
    assert "secret" not in caught.value.message


async def test_a_full_disk_is_told(
    index: Path, kept: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own refusal, of writing to ``/dev/full``, where the template is to go."""

    def finish(*_: object) -> None:
        Path("/dev/full").write_text("what is written of a template")

    monkeypatch.setattr(kept.store, "finish", finish)
    with pytest.raises(StateError, match="free space"):
        await kept.build(TINY)
    assert not list(kept.store.place(key_of(TINY)).parent.glob("unfinished-*"))


async def test_cancelling_kills_the_builder_and_leaves_nothing(
    tmp_path: Path, kept: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_index(tmp_path, monkeypatch) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(kept.build, TINY)
            connection, _ = await run_sync(server.accept)
            assert host.running(str(tmp_path))
            group.cancel_scope.cancel()
        connection.close()
    assert not host.running(str(tmp_path))
    assert not kept.store.place(key_of(TINY)).exists()


BUILDER = """
import sys, anyio
from pathlib import Path
from sandbox_sdk.engine.templates import Templates
anyio.run(Templates(Path(sys.argv[1])).build, ("tiny",))
"""


async def test_a_killed_builders_folder_is_swept_once_its_program_is_gone(
    tmp_path: Path, kept: Templates, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = kept.store.place(key_of(TINY))
    with silent_index(tmp_path, monkeypatch) as server:
        builder = await anyio.open_process(
            [sys.executable, "-c", BUILDER, str(folder)], stderr=None
        )
        connection, _ = await run_sync(server.accept)
        builder.kill()
        await builder.wait()
        kept.store.sweep()
        assert place.exists()  # its uv writes there still
        (uv,) = [pid for pid in host.running(str(place)) if pid != builder.pid]
        os.kill(uv, signal.SIGKILL)
        connection.close()

    def swept() -> bool:
        # A process that was killed is seen as gone before its files are closed.
        kept.store.sweep()
        return not place.exists()

    assert await host.soon(swept)


async def test_the_next_builder_clears_what_a_killed_one_left(
    index: Path, kept: Templates, folder: Path
) -> None:
    half = kept.store.place(key_of(TINY)) / "venv"
    half.mkdir(parents=True)
    (half / "rest").write_text("of another")
    half.chmod(0o555)
    info = await kept.build(TINY)
    assert not list(kept.store.venv(info.key).rglob("rest"))


async def test_a_name_means_the_template_it_was_given_last(index: Path, kept: Templates) -> None:
    make_wheel(index, "other")
    first = await kept.build(TINY, name="mine", preload=("tiny",))
    assert first.names == ("mine",)
    pinned = await kept.pin(SandboxSpec(name="x", template="mine", preload=("json",)))
    assert (pinned.template, pinned.preload) == (first.key, ("tiny", "json"))
    second = await kept.build(("other",), name="mine")
    assert (await kept.pin(SandboxSpec(name="x", template="mine"))).template == second.key
    assert kept.store.info(first.key).names == ()


@pytest.mark.parametrize("name", ["", "python", "host", "a/b", "../a", "7", "a" * 65, "0" * 32])
async def test_other_names_are_refused(kept: Templates, name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        await kept.build(TINY, name=name)


async def test_an_unknown_template_is_told_with_the_one_meant(index: Path, kept: Templates) -> None:
    await kept.build(TINY, name="science")
    with pytest.raises(TemplateError, match='did you mean "science"'):
        await kept.pin(SandboxSpec(name="x", template="sience"))
    with pytest.raises(TemplateError, match='did you mean "python"'):
        await kept.pin(SandboxSpec(name="x", template="pyton"))
    with pytest.raises(TemplateError, match="is not there"):
        await kept.pin(SandboxSpec(name="x", template="0" * 32))


async def test_a_template_in_use_is_not_removed(
    index: Path, kept: Templates, folder: Path, tmp_path: Path
) -> None:
    info = await kept.build(TINY, name="mine")
    other = Templates(folder)
    await other.resolve(SandboxSpec(name="x", template=info.key), tmp_path)
    with pytest.raises(TemplateError, match="in use"):
        kept.store.remove("mine")
    assert kept.store.info("mine").used_at is not None
    other.release()
    assert kept.store.remove("mine").key == info.key
    assert kept.store.list() == ()
    assert sorted(os.listdir(folder)) == ["empty", "names"]
    with pytest.raises(TemplateError):
        kept.store.info("mine")


@pytest.mark.parametrize("how", ["changed", "added", "removed"])
async def test_a_template_that_was_changed_is_refused(
    index: Path, kept: Templates, tmp_path: Path, how: str
) -> None:
    info = await kept.build(TINY)
    (module,) = kept.store.venv(info.key).rglob("tiny.py")
    module.parent.chmod(0o755)
    if how == "added":
        (module.parent / "more.py").touch()
    else:
        module.unlink()
    if how == "changed":
        module.write_text("VERSION = 'mine'\n")
    spec = SandboxSpec(name="x", packages=TINY)
    with pytest.raises(TemplateError, match="not what was built"):
        await kept.resolve(spec, tmp_path)
    with pytest.raises(TemplateError, match="not what was built"):
        kept.store.verify(info.key)


async def test_verifying_finds_a_change_that_keeps_size_and_time(
    index: Path, kept: Templates
) -> None:
    info = await kept.build(TINY)
    (module,) = kept.store.venv(info.key).rglob("tiny.py")
    before = module.stat()
    module.chmod(0o644)
    module.write_text(module.read_text().replace("1.0", "6.6"))
    module.chmod(0o444)
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TemplateError, match="not what was built"):
        kept.store.verify(info.key)


async def test_a_damaged_record_is_told(index: Path, kept: Templates, folder: Path) -> None:
    info = await kept.build(TINY)
    record = folder / info.key / "template.json"
    record.chmod(0o644)
    record.write_text("{")
    with pytest.raises(TemplateError, match="damaged"):
        kept.store.info(info.key)


async def test_each_template_is_looked_at_once_and_keeps_its_preloads_apart(
    index: Path, kept: Templates, tmp_path: Path
) -> None:
    spec = SandboxSpec(name="x", packages=TINY, preload=("tiny",))
    one = await kept.resolve(spec, tmp_path)
    other = await kept.resolve(attrs.evolve(spec, preload=()), tmp_path)
    assert one.key == other.key
    assert one.view is other.view
    assert (one.preload, other.preload) == (("tiny",), ())


@pytest.mark.parametrize(
    ("level", "key"), [("low", "host"), ("medium", "host"), ("high", "python")]
)
async def test_levels_have_a_default(kept: Templates, tmp_path: Path, level: str, key: str) -> None:
    spec = parse_spec("x", settings=Settings(), security_level=level)
    assert (await kept.resolve(spec, tmp_path)).key == key


def targets(template: Template) -> dict[str, Path]:
    return {mount.target: mount.source for mount in template.view.mounts}


async def test_only_the_host_template_shows_its_packages(kept: Templates, tmp_path: Path) -> None:
    shown = await kept.resolve(SandboxSpec(name="x", template="host"), tmp_path)
    bare = await kept.resolve(SandboxSpec(name="x", template="python"), tmp_path)
    assert Path(pytest.__file__).parents[1].resolve() in targets(shown).values()
    assert Path(pytest.__file__).parents[1].resolve() not in targets(bare).values()
    empty = kept.store.empty()
    masked = [target for target, source in targets(bare).items() if source == empty]
    assert not list(empty.iterdir())
    assert all(target.endswith("-packages") for target in masked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"packages": ["a"], "template": "host"}, "leave out template='host'"),
        ({"packages": ["a"], "template": "mine"}, "leave out template='mine'"),
        ({"network": "open"}, "network: 'open' is refused"),
        ({"network": ["example.org"]}, "network: a list is refused"),
        ({"template": 7}, "template: must be text"),
        ({"template": ""}, "template: must be text"),
    ],
)
def test_what_cannot_be_asked_together_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec("x", settings=Settings(), **asked)  # type: ignore[arg-type]
    assert said in caught.value.message


def test_what_can_be_asked_is_in_the_spec() -> None:
    spec = parse_spec(
        "x",
        settings=Settings(),
        template="python",
        packages=["B", "a"],
        preload=["a"],
        network="none",
    )
    assert (spec.template, spec.packages, spec.preload) == ("python", ("a", "b"), ("a",))
    assert spec.network == "none"


PIP = """\
global.cert='/etc/ssl/own.pem'
global.extra-index-url='https://one/simple https://two/simple'
global.find-links='/a /b'
global.index-url='https://old/simple'
install.index-url='https://me:secret@new/simple'
:env:.find-links='/c'
:env:.no-index='1'
"""


def test_pips_settings_become_uvs_the_later_section_first() -> None:
    environment, flags = index_settings.translate(PIP)
    assert environment == {
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_DEFAULT_INDEX": "https://me:secret@new/simple",
        "UV_FIND_LINKS": "/c",
    }
    assert flags == ("--no-index",)
    assert index_settings.translate("") == ({}, ())


async def test_where_only_pip_is_configured_packages_come_from_there(
    index: Path, kept: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {index}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert (await kept.build(TINY)).versions == ("tiny==1.0",)


async def test_nothing_else_of_the_environment_reaches_the_builder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://example.org/simple")
    monkeypatch.setenv("UV_PYTHON", "3.8")
    monkeypatch.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")
    environment, flags = index_settings.find()
    assert environment["UV_DEFAULT_INDEX"] == "https://example.org/simple"
    assert not {"OPENAI_API_KEY", "UV_PYTHON"} & environment.keys()
    assert flags == ()


async def test_names_and_templates_can_be_removed_in_any_order(
    index: Path, kept: Templates
) -> None:
    info = await kept.build(TINY, name="a")
    kept.store.name("b", Named(key=info.key))
    assert kept.store.info("b").names == ("a", "b")
    kept.store.remove(info.key)
    for name in ("a", "b", info.key):
        with pytest.raises(SandboxError, match=r"no template|is not there"):
            kept.store.info(name)
