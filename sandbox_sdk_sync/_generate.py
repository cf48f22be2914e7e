"""Writes the blocking twin of the async classes: plain text, one expression per method.

For every public class ``AsyncX`` in a module directly in ``sandbox_sdk`` it writes a class ``X``
that holds an ``AsyncX`` and the portal to it. Signatures, defaults and docstrings are read from
the source text, so nothing is imported and nothing is lost. The shapes it knows:

    async def f(...) -> T                         def f(...) -> T
    async def f(...) -> AsyncIterator[T]: yield   def f(...) -> Iterator[T]
    @asynccontextmanager                          def f(...) -> AbstractContextManager[T]
    property -> T                                 property -> T
    property -> AsyncIterator[T]                  property -> Iterator[T]
    __aenter__, __aexit__, aclose                 __enter__, __exit__, close
    __aiter__                                     __iter__

Results ``AsyncX``, ``AsyncX | None`` and ``list[AsyncX]`` are wrapped, arguments that may be twins
unwrapped, ``AsyncIterable`` arguments fed from plain iterables. Any other shape, or a public name
without a docstring, is refused with its file and line.

    python sandbox_sdk_sync/_generate.py            # write
    python sandbox_sdk_sync/_generate.py --check    # only compare; exit code 1 if stale
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

CORE, TWIN = "sandbox_sdk", "sandbox_sdk_sync"
ROOTS = frozenset({"AsyncSandboxClient"})
"""The classes that users construct; each owns a loop and ends it in ``close()``."""

MARK = "# Generated from "
RENAMED = {"aclose": "close", "__aiter__": "__iter__"}
BLOCKING = {"AsyncIterator": "Iterator", "AsyncIterable": "Iterable", "AsyncGenerator": "Generator"}
UNKNOWN = {"Awaitable", "Coroutine", "Callable", "Future", "AsyncContextManager"}
"""Types with no blocking form. No callbacks: they would run on the loop thread."""

TRANSLATED = {"__init__", "__aenter__", "__aexit__", "__aiter__"}
INHERITED = {"__repr__", "__reduce__", "__eq__", "__hash__", "__slots__"}
"""What `Twin` has for all classes. Other names with two underscores are refused."""

Method = ast.FunctionDef | ast.AsyncFunctionDef


class Refused(Exception):
    """A source holds something that has no blocking form."""


class Writer:
    """Writes the twin of one module."""

    def __init__(self, path: Path, tree: ast.Module, homes: dict[str, str]) -> None:
        self.path = path
        self.tree = tree
        self.homes = homes
        """Async class -> the module it lives in."""

    def write(self) -> str:
        """Return the module's text, not yet formatted."""
        classes = [
            node
            for node in self.tree.body
            if isinstance(node, ast.ClassDef) and self.homes.get(node.name) == self.path.stem
        ]
        head = f"{MARK}{CORE}/{self.path.name}. Edit that, then run: nox -s generate -- --write\n"
        body = "\n\n".join(self._class(node) for node in classes)
        return head + self._doc(self.tree, 0) + self._imports() + body

    def _imports(self) -> str:
        """The source's own imports and all that twins need; ruff drops what is not used."""
        lines = [
            "from __future__ import annotations",
            "from collections.abc import Generator, Iterable, Iterator",
            "from contextlib import AbstractContextManager",
            "from types import TracebackType",
            "from typing import Self",
            f"from {TWIN}._twin import Root, Twin, core_of, feed",
        ]
        for_checkers: list[str] = []
        for node in self.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                lines += self._import(node)
            elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                for_checkers += [line for child in node.body for line in self._import(child)]
            else:
                public = [name for name in _defines(node) if not name.startswith("_")]
                lines += [f"from {CORE}.{self.path.stem} import {name}" for name in public]
        lines += [
            f"from {TWIN}.{home} import {name.removeprefix('Async')}"
            for name, home in self.homes.items()
            if home != self.path.stem
        ]
        if for_checkers:
            lines += ["if TYPE_CHECKING:", *(f"    {line}" for line in for_checkers)]
        return "\n".join(lines) + "\n\n"

    def _import(self, node: ast.stmt) -> list[str]:
        if isinstance(node, ast.ImportFrom):
            if node.level:
                self._refuse(node, "a relative import: write the whole name of the module")
            names = [alias for alias in node.names if alias.name not in self.homes]
            if not names or node.module == "__future__":
                return []
            return [ast.unparse(ast.ImportFrom(module=node.module, names=names, level=0))]
        return [ast.unparse(node)]

    def _class(self, node: ast.ClassDef) -> str:
        name, root = node.name.removeprefix("Async"), node.name in ROOTS
        if node.bases or node.keywords:
            self._refuse(node, f"{node.name} has base classes, which are not read: compose instead")
        methods = {child.name: child for child in node.body if isinstance(child, Method)}
        for child in node.body:
            self._check_member(node, child)
        if root and "aclose" not in methods:
            self._refuse(node, f"{node.name} is made by users and has no aclose()")
        if ("__aenter__" in methods) != ("__aexit__" in methods):
            self._refuse(node, f"{node.name} has only one of __aenter__ and __aexit__")
        parts = [f"class {name}({'Root' if root else 'Twin'}[{node.name}]):", self._doc(node, 4)]
        if root:
            parts.append(self._init(node, methods.get("__init__")))
        if "__aenter__" in methods:
            parts.append(_enter_and_exit(root=root))
        parts += [
            self._method(method, root=root)
            for method in methods.values()
            if not method.name.startswith("_") or method.name in RENAMED
        ]
        return "\n".join(parts)

    def _check_member(self, owner: ast.ClassDef, child: ast.stmt) -> None:
        """Refuse what a class may not show beside its methods."""
        for name in _defines(child):
            if name.startswith("__") and name not in TRANSLATED | INHERITED:
                self._refuse(child, f"{owner.name}.{name} has no blocking form")
            if not name.startswith("_") and not isinstance(child, Method):
                self._refuse(child, f"{owner.name}.{name} is no method: make it a property")

    def _init(self, owner: ast.ClassDef, init: Method | None) -> str:
        arguments = self._arguments(init) if init else "self"
        forwarded = [owner.name, *(self._forward(init) if init else [])]
        call = f"super().__init__({', '.join(forwarded)})"
        return f"    def __init__({arguments}) -> None:\n        {call}\n"

    def _method(self, method: Method, *, root: bool) -> str:
        if method.returns is None:
            self._refuse(method, f"{method.name} says nothing of what it returns")
        marks = {ast.unparse(mark) for mark in method.decorator_list}
        name, returns = RENAMED.get(method.name, method.name), method.returns
        arguments = [f"self._core.{method.name}", *self._forward(method)]
        item = _item(returns)
        mark = ""
        if marks == {"property"} and isinstance(method, ast.FunctionDef):
            mark = "    @property\n"
            if item is not None:
                self._refuse_twin(method, item)
                result = f"Iterator[{self._plain(item)}]"
                body = f"self._portal.follow(lambda: {arguments[0]})"
            else:
                result, body = self._plain(returns), self._wrap(method, returns, arguments[0])
        elif marks == {"asynccontextmanager"} and item is not None:
            result = f"AbstractContextManager[{self._plain(item)}]"
            body = self._bridge(method, "enter", item, arguments)
        elif marks:
            self._refuse(method, f"{method.name} is decorated with {', '.join(sorted(marks))}")
        elif item is not None and (isinstance(method, ast.FunctionDef) or _yields(method)):
            result = f"Iterator[{self._plain(item)}]"
            body = self._bridge(method, "iterate", item, arguments)
        elif isinstance(method, ast.AsyncFunctionDef) and item is None:
            result = self._plain(returns)
            call = "self._end" if root and method.name == "aclose" else "self._call"
            body = self._wrap(method, returns, f"{call}({', '.join(arguments)})")
        else:
            self._refuse(method, f"{method.name} has no blocking form")
        head = f"{mark}    def {name}({self._arguments(method)}) -> {result}:\n"
        give = "" if result == "None" else "return "
        return f"{head}{self._doc(method, 8)}        {give}{body}\n"

    def _bridge(self, method: Method, how: str, item: ast.expr, arguments: list[str]) -> str:
        """A call of the portal's ``how``, its items wrapped where they are async objects."""
        if isinstance(item, ast.Name) and item.id in self.homes:
            return f"self._portal.{how}_as({', '.join([self._plain(item), *arguments])})"
        self._refuse_twin(method, item)
        return f"self._portal.{how}({', '.join(arguments)})"

    def _wrap(self, method: Method, returns: ast.expr, call: str) -> str:
        """``call`` with the async objects in its result wrapped."""
        match returns:
            case ast.Name(id=name) if name in self.homes:
                return f"{self._plain(returns)}({call}, self._portal)"
            case ast.BinOp(left=ast.Name(id=name) as one, right=ast.Constant(value=None)) if (
                name in self.homes
            ):
                some = f"{self._plain(one)}(core, self._portal)"
                return f"None if (core := {call}) is None else {some}"
            case ast.Subscript(value=ast.Name(id="list"), slice=ast.Name(id=name) as one) if (
                name in self.homes
            ):
                return f"[{self._plain(one)}(core, self._portal) for core in {call}]"
            case _:
                self._refuse_twin(method, returns)
                return call

    def _refuse_twin(self, method: Method, kind: ast.expr) -> None:
        if found := sorted(_names(kind) & (self.homes.keys() | BLOCKING.keys() | UNKNOWN)):
            self._refuse(method, f"{method.name} has no rule for {found[0]} in what it returns")

    def _arguments(self, method: Method) -> str:
        for node in ast.walk(method.args):
            if isinstance(node, ast.Name) and node.id.startswith("_"):
                self._refuse(node, f"{method.name} needs the private name {node.id} in the twin")
        return self._plain(method.args)

    def _forward(self, method: Method) -> list[str]:
        """The arguments passed on by the same names."""
        every = method.args
        out = [self._pass(method, arg) for arg in [*every.posonlyargs, *every.args][1:]]
        if every.vararg:
            out.append(f"*{self._pass(method, every.vararg)}")
        out += [f"{arg.arg}={self._pass(method, arg)}" for arg in every.kwonlyargs]
        if every.kwarg:
            out.append(f"**{self._pass(method, every.kwarg)}")
        return out

    def _pass(self, method: Method, arg: ast.arg) -> str:
        """One argument as the core takes it."""
        if arg.annotation is None:
            self._refuse(arg, f"{method.name} gives no type for {arg.arg}")
        kind = arg.annotation
        names = _names(kind)
        plain = {part.id for part in _alternatives(kind) if isinstance(part, ast.Name)}
        if names & self.homes.keys():
            if names & self.homes.keys() <= plain:
                return f"core_of({arg.arg})"
            self._refuse(arg, f"{method.name} hides async objects inside {arg.arg}")
        if names & UNKNOWN:
            self._refuse(arg, f"{arg.arg} of {method.name} has no blocking form")
        return f"feed({arg.arg})" if names & BLOCKING.keys() else arg.arg

    def _plain(self, node: ast.AST) -> str:
        return self._words(ast.unparse(node))

    def _words(self, text: str) -> str:
        """Async words out of code or prose: ``async with AsyncX`` becomes ``with X``."""
        text = re.sub(r"\bAsync\w+", lambda found: self._blocking(found.group()), text)
        return re.sub(r"\b(?:async|await) (?=\S)", "", re.sub(r"\baclose\b", "close", text))

    def _blocking(self, name: str) -> str:
        return name.removeprefix("Async") if name in self.homes else BLOCKING.get(name, name)

    def _doc(
        self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, indent: int
    ) -> str:
        name = self.path.stem if isinstance(node, ast.Module) else node.name
        text = ast.get_docstring(node)
        if not text:
            self._refuse(node, f"{name} has no docstring")
        text = self._words(text)
        if left := re.search(r"\b(async|await)\b", text):
            self._refuse(node, f"the docstring of {name} says {left.group()!r}: reword it")
        if '"""' in text or text.endswith(("\\", '"')):
            self._refuse(node, f"the docstring of {name} cannot be quoted: reword it")
        pad, raw = " " * indent, "r" if "\\" in text else ""
        lines = [f"{pad}{line}".rstrip() for line in f'{raw}"""{text}'.splitlines()]
        close = '"""' if len(lines) == 1 else f'\n{pad}"""'
        return "\n".join(lines) + close + "\n"

    def _refuse(self, node: ast.AST, why: str) -> NoReturn:
        raise Refused(f"{CORE}/{self.path.name}:{getattr(node, 'lineno', 1)}: {why}")


def generate(root: Path) -> dict[Path, str]:
    """Return path -> text of every file of the twin that is written here.

    Raises:
        Refused: A source has a shape without a rule, or a syntax error.
    """
    trees = {path: _parse(path) for path in sorted((root / CORE).glob("*.py"))}
    homes = {
        node.name: path.stem
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and re.match(r"Async[A-Z]", node.name)
    }
    out = {
        root / TWIN / path.name: Writer(path, tree, homes).write()
        for path, tree in trees.items()
        if path.stem in homes.values()
    }
    out[root / TWIN / "__init__.py"] = _package(homes)
    return {path: _format(root, path, text) for path, text in out.items()}


def stale(root: Path, files: dict[Path, str]) -> list[Path]:
    """Return the files that differ from what would be written, and those that no source makes."""
    wrong = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    return wrong + [
        path
        for path in sorted((root / TWIN).glob("*.py"))
        if path not in files and path.read_text().startswith(MARK)
    ]


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(), path)
    except SyntaxError as exc:
        raise Refused(f"{CORE}/{path.name}:{exc.lineno}: {exc.msg}") from exc


def _package(homes: dict[str, str]) -> str:
    names = sorted(name.removeprefix("Async") for name in homes)
    lines = [
        f"{MARK}the classes in {CORE}. Run: nox -s generate -- --write",
        f'"""The blocking twin of ``{CORE}``."""',
        *(
            f"from {TWIN}.{home} import {name.removeprefix('Async')}"
            for name, home in homes.items()
        ),
        f"__all__ = {names!r}",
    ]
    return "\n".join(lines) + "\n"


def _format(root: Path, path: Path, text: str) -> str:
    # Isolated, so that the same text comes out wherever the project lies.
    common = ["--isolated", "--quiet", "--line-length=100", "--target-version=py311"]
    common += [f'--config=lint.isort.known-first-party=["{CORE}", "{TWIN}"]']
    common += ["--config=lint.isort.split-on-trailing-comma=false"]
    named = f"--stdin-filename={path.relative_to(root)}"
    for command in (["check", "--fix-only", "--select=F401,F811,I,RET501,TC005"], ["format"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *common, named, "-"],
            cwd=root,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


def _enter_and_exit(*, root: bool) -> str:
    call = "self._end" if root else "self._call"
    return f"""\
    def __enter__(self) -> Self:
        self._enter(self._core)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        {call}(self._core.__aexit__, exc_type, exc, trace)
"""


def _defines(node: ast.stmt) -> list[str]:
    """The names that a statement of a module or class body gives a meaning."""
    if isinstance(node, Method | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def _item(kind: ast.expr) -> ast.expr | None:
    """T of ``AsyncIterator[T]`` and ``AsyncGenerator[T, ...]``; None for anything else."""
    match kind:
        case ast.Subscript(value=ast.Name(id="AsyncIterator"), slice=item):
            return item
        case ast.Subscript(value=ast.Name(id="AsyncGenerator"), slice=ast.Tuple(elts=[item, *_])):
            return item
        case _:
            return None


def _alternatives(kind: ast.expr) -> Iterator[ast.expr]:
    if isinstance(kind, ast.BinOp):
        yield from _alternatives(kind.left)
        yield from _alternatives(kind.right)
    else:
        yield kind


def _names(node: ast.AST) -> set[str]:
    return set(re.findall(r"\w+", ast.unparse(node)))


def _yields(method: Method) -> bool:
    return any(isinstance(node, ast.Yield) for node in ast.walk(method))


def main(arguments: list[str] | None = None, root: Path | None = None) -> int:
    """Write or check the twin; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the blocking twin of the async classes.")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args(arguments).check
    root = root or Path(__file__).resolve().parent.parent
    try:
        files = generate(root)
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    wrong = stale(root, files)
    for path in wrong:
        if check:
            message = f"{path.relative_to(root)} is stale; run: nox -s generate -- --write\n"
            sys.stderr.write(message)
        elif path in files:
            path.write_text(files[path])
        else:
            path.unlink()
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
