"""The generator of the blocking twin writes every shape it knows, and refuses all others."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_sdk_sync import _generate

SANDBOX = '''
"""A sandbox of a toy core, reached with ``async with``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import anyio

if TYPE_CHECKING:
    from decimal import Decimal
    from fractions import Fraction

Language = Literal["python", "bash"]
DEFAULT_LINES = 3


class AsyncFiles:
    """Files.

    Read them with ``await sandbox.files.read(...)``.
    """

    def __init__(self, content: dict[str, bytes]) -> None:
        self._content = content

    async def read(self, path: str) -> bytes:
        """Return the bytes."""
        return self._content[path]

    async def write(self, path: str, data: bytes | AsyncIterable[bytes]) -> None:
        """Write bytes, or an ``AsyncIterable`` of them."""
        if isinstance(data, bytes):
            self._content[path] = data
        else:
            self._content[path] = b"".join([part async for part in data])


class AsyncProcess:
    """A running command."""

    def __init__(self, lines: int) -> None:
        self._output = self._lines(lines)

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Lines as they come."""
        return self._output

    async def _lines(self, lines: int) -> AsyncIterator[bytes]:
        for number in range(lines):
            yield json.dumps(number).encode()


class AsyncSandbox:
    """A place.

    Use it so:

        async with await client.create("x") as sandbox:
            async for line in sandbox.lines():
                await sandbox.note(line)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._files = AsyncFiles({})
        self.entered = 0

    async def __aenter__(self) -> AsyncSandbox:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.entered -= 1

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def files(self) -> AsyncFiles:
        """Its files."""
        return self._files

    async def run(
        self, code: str, /, *parts: str, language: Language = "python", env: Mapping[str, str] = {}
    ) -> str:
        r"""Run code; ``"\\n"`` ends a line."""
        await anyio.lowlevel.checkpoint()
        return f"{language}: {code}{''.join(parts)}{dict(env)}"

    async def lines(self, count: int = DEFAULT_LINES) -> AsyncIterator[str]:
        """Yield lines."""
        for number in range(count):
            yield str(number)

    @asynccontextmanager
    async def start(self, lines: int) -> AsyncIterator[AsyncProcess]:
        """Start a command."""
        yield AsyncProcess(lines)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[int]:
        """Hold a lock."""
        yield 7

    async def price(self) -> Decimal | None:
        """Return a price."""
        return None
'''

CLIENT = '''
"""A client of a toy core."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sandbox_sdk.sandbox import AsyncSandbox


class AsyncSandboxClient:
    """The way in. ``aclose()`` ends it."""

    def __init__(self, prefix: str = "", *, refuse: bool = False) -> None:
        self._prefix = prefix
        self._made: list[AsyncSandbox] = []
        if refuse:
            raise ValueError("refused")

    async def __aenter__(self) -> AsyncSandboxClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def create(self, name: str, like: AsyncSandbox | str | None = None) -> AsyncSandbox:
        """Make a sandbox."""
        if isinstance(like, AsyncSandbox):
            name += f" like {like.name}"
        self._made.append(AsyncSandbox(self._prefix + name))
        return self._made[-1]

    async def find(self, name: str) -> AsyncSandbox | None:
        """Find a sandbox."""
        return next((made for made in self._made if made.name == name), None)

    async def every(self) -> list[AsyncSandbox]:
        """Return all sandboxes."""
        return self._made

    async def watch(self) -> AsyncIterator[AsyncSandbox]:
        """Yield the sandboxes."""
        for made in self._made:
            yield made

    async def aclose(self) -> None:
        """End all."""
        self._made.clear()
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small project whose twin is written and up to date."""
    root = tmp_path_factory.mktemp("toy")
    core = root / "sandbox_sdk"
    core.mkdir()
    (root / "sandbox_sdk_sync").mkdir()
    (core / "__init__.py").write_text('"""A toy core."""\n')
    (core / "sandbox.py").write_text(SANDBOX.lstrip())
    (core / "client.py").write_text(CLIENT.lstrip())
    assert _generate.main([], root) == 0
    return root


@pytest.fixture
def toy(written: Path, tmp_path: Path) -> Path:
    """A copy of that project to work on."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def run(toy: Path, program: str) -> str:
    """Run a program against the toy core and its twin, over the real bridge."""
    sources = Path(_generate.__file__).parent
    for name in ("_loop.py", "_portal.py", "_twin.py"):
        (toy / "sandbox_sdk_sync" / name).write_text((sources / name).read_text())
    errors = sources.parent / "sandbox_sdk" / "errors.py"
    (toy / "sandbox_sdk" / "errors.py").write_text(errors.read_text())
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=toy,
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert ended.stderr == ""
    return ended.stdout


def test_every_shape_works(toy: Path) -> None:
    program = """
from sandbox_sdk_sync import Process, Sandbox, SandboxClient

with SandboxClient("p-") as client:
    a = client.create("a")
    b = client.create("b", like=a)
    assert isinstance(a, Sandbox) and b.name == "p-b like p-a", b.name
    assert client.find("p-a") == a and client.find("none") is None
    assert client.every() == [a, b] == list(client.watch())
    with a as same:
        assert same is a and a._core.entered == 1
    assert a._core.entered == 0
    assert a.run("x", "y", language="bash") == "bash: xy{}"
    assert list(a.lines(2)) == ["0", "1"]
    a.files.write("f", [b"one ", b"two"])
    assert a.files.read("f") == b"one two"
    a.files.write("f", b"three")
    assert a.files.read("f") == b"three"
    with a.start(3) as process:
        assert isinstance(process, Process)
        assert next(process.stdout) == b"0" and list(process.stdout) == [b"1", b"2"]
    with a.lock() as number:
        assert number == 7
    assert a.price() is None
try:
    SandboxClient(refuse=True)
except ValueError as exc:
    print(exc)
"""
    assert run(toy, program) == "refused\n"


def test_what_is_written_reads_like_blocking_code(toy: Path) -> None:
    sandbox = (toy / "sandbox_sdk_sync" / "sandbox.py").read_text()
    assert sandbox.startswith("# Generated from sandbox_sdk/sandbox.py. ")
    assert '"""A sandbox of a toy core, reached with ``with``."""' in sandbox
    assert 'with client.create("x") as sandbox:' in sandbox
    assert "            for line in sandbox.lines():\n                sandbox.note(line)" in sandbox
    assert 'r"""Run code; ``"\\n"`` ends a line."""' in sandbox
    assert "def lines(self, count: int = DEFAULT_LINES) -> Iterator[str]:" in sandbox
    assert "def start(self, lines: int) -> AbstractContextManager[Process]:" in sandbox
    assert "if TYPE_CHECKING:\n    from decimal import Decimal\n\n" in sandbox
    for unused in ("anyio", "json", "Fraction", "async", "await", "    pass"):
        assert unused not in sandbox
    client = (toy / "sandbox_sdk_sync" / "client.py").read_text()
    assert '"""The way in. ``close()`` ends it."""' in client
    assert "def close(self) -> None:" in client
    package = (toy / "sandbox_sdk_sync" / "__init__.py").read_text()
    assert '__all__ = ["Files", "Process", "Sandbox", "SandboxClient"]' in package


def test_the_check_passes_when_nothing_changed(toy: Path) -> None:
    assert _generate.main(["--check"], toy) == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("sandbox_sdk/sandbox.py", "Return the bytes.", "Return all bytes."),
        ("sandbox_sdk/sandbox.py", "code: str, /, *parts", "code: str, more: str, /, *parts"),
        (
            "sandbox_sdk/client.py",
            "    async def find",
            '    async def added(self) -> None:\n        """Do."""\n\n    async def find',
        ),
        ("sandbox_sdk_sync/sandbox.py", "Return the bytes.", "Return no bytes."),
        ("sandbox_sdk_sync/__init__.py", '"Sandbox", ', ""),
    ],
)
def test_the_check_fails_on_a_change_and_writing_mends_it(
    toy: Path, file: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(toy / file, old, new)
    assert _generate.main(["--check"], toy) == 1
    assert "is stale; run: nox -s generate -- --write" in capsys.readouterr().err
    assert _generate.main([], toy) == 0
    assert _generate.main(["--check"], toy) == 0


def test_the_check_fails_on_text_added_at_the_end(toy: Path) -> None:
    written = toy / "sandbox_sdk_sync" / "client.py"
    written.write_text(written.read_text() + "\nEXTRA = 1\n")
    assert _generate.main(["--check"], toy) == 1


def test_the_check_fails_on_a_missing_file_and_on_one_without_a_source(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "sandbox_sdk_sync" / "client.py").unlink()
    assert _generate.main(["--check"], toy) == 1
    assert _generate.main([], toy) == 0
    left = toy / "sandbox_sdk_sync" / "gone.py"
    left.write_text("# Generated from sandbox_sdk/gone.py.\n")
    capsys.readouterr()
    assert _generate.main(["--check"], toy) == 1
    assert "gone.py is stale" in capsys.readouterr().err
    assert _generate.main([], toy) == 0
    assert not left.exists()


REFUSALS = {
    "a syntax error": ("class AsyncFiles:", "class AsyncFiles(:", "invalid syntax"),
    "a class without a docstring": ('    """A running command."""\n', "", "has no docstring"),
    "a method without a docstring": (
        '        """Return the bytes."""\n',
        "",
        "read has no docstring",
    ),
    "a property without a docstring": ('        """Its name."""\n', "", "name has no docstring"),
    "prose that would not be true": (
        "Return the bytes.",
        "Return what can be read with async.",
        "says 'async': reword it",
    ),
    "a method that is not async": (
        "    async def read(self, path: str) -> bytes:",
        "    def read(self, path: str) -> bytes:",
        "read has no blocking form",
    ),
    "a result without a type": (
        "    async def read(self, path: str) -> bytes:",
        "    async def read(self, path: str):",
        "says nothing of what it returns",
    ),
    "an awaited iterator": (
        "    async def price(self) -> Decimal | None:",
        "    async def price(self) -> AsyncIterator[int]:",
        "price has no blocking form",
    ),
    "an async object deep in a result": (
        "    async def price(self) -> Decimal | None:",
        "    async def price(self) -> dict[str, AsyncFiles]:",
        "no rule for AsyncFiles",
    ),
    "an async object deep in an argument": (
        "    async def price(self) -> Decimal | None:",
        "    async def price(self, of: list[AsyncFiles]) -> Decimal | None:",
        "hides async objects inside of",
    ),
    "a callback": (
        "    async def price(self) -> Decimal | None:",
        "    async def price(self, then: Callable[[], None]) -> Decimal | None:",
        "then of price has no blocking form",
    ),
    "an argument without a type": (
        "    async def price(self) -> Decimal | None:",
        "    async def price(self, of) -> Decimal | None:",
        "gives no type for of",
    ),
    "a private default": (
        "    async def price(self) -> Decimal | None:",
        "    async def price(self, of: int = _PRICE) -> Decimal | None:",
        "needs the private name _PRICE",
    ),
    "a static method": (
        "    async def price(self) -> Decimal | None:",
        "    @staticmethod\n    async def price() -> Decimal | None:",
        "decorated with staticmethod",
    ),
    "a public attribute": (
        '"""A running command."""\n',
        '"""A command."""\n    SIZE = 4\n',
        "SIZE",
    ),
    "a base class": ("class AsyncProcess:", "class AsyncProcess(Base):", "has base classes"),
    "another special method": (
        "    async def price(self) -> Decimal | None:",
        "    def __len__(self) -> int: ...\n    async def price(self) -> Decimal | None:",
        "__len__ has no blocking form",
    ),
    "half of a context manager": (
        "    async def __aexit__(self, *_: object) -> None:\n        self.entered -= 1\n",
        "",
        "only one of __aenter__ and __aexit__",
    ),
    "a relative import": ("import json\n", "from . import json\n", "relative import"),
}


@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["write", "check"])
def test_what_has_no_rule_is_refused_with_file_and_line(
    toy: Path, what: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, why = REFUSALS[what]
    before = {path: path.read_text() for path in (toy / "sandbox_sdk_sync").iterdir()}
    edit(toy / "sandbox_sdk" / "sandbox.py", old, new)
    assert _generate.main(arguments, toy) == 1
    message = capsys.readouterr().err
    assert message.startswith("sandbox_sdk/sandbox.py:")
    assert message.split(":")[1].isdigit()
    assert why in message
    assert {path: path.read_text() for path in (toy / "sandbox_sdk_sync").iterdir()} == before


def test_a_root_without_an_end_is_refused(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(toy / "sandbox_sdk" / "client.py", "async def aclose", "async def _aclose")
    assert _generate.main([], toy) == 1
    assert "has no aclose()" in capsys.readouterr().err


def test_the_command_line_fails_when_stale(toy: Path) -> None:
    """What CI runs: the script itself, in the project it belongs to."""
    script = toy / "sandbox_sdk_sync" / "_generate.py"
    script.write_text(Path(_generate.__file__).read_text())
    command = [sys.executable, str(script), "--check"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    edit(toy / "sandbox_sdk" / "client.py", "Return all sandboxes.", "Return every sandbox.")
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "sandbox_sdk_sync/client.py is stale" in ended.stderr


def test_one_expression_per_method(toy: Path) -> None:
    tree = ast.parse((toy / "sandbox_sdk_sync" / "client.py").read_text())
    (client,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for method in client.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            assert [type(line) for line in method.body[1:]] in ([ast.Return], [ast.Expr])
