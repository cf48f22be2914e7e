"""What callers pass to a sandbox, checked before anything of it is done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import valid_signals
from typing import Any

from sandbox_sdk.agent.frames import MAX_FRAME
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import parse_seconds

_SHELL = ("/bin/bash", "-c")
_LARGEST = MAX_FRAME // 8  # JSON may write one byte as six
_MOST_CELLS = 2**16 - 1  # columns or rows: the kernel keeps 16 bits of each
_LONGEST_ARGUMENT = 128 * 1024 - 1  # the kernel's MAX_ARG_STRLEN, its NUL included


def command(
    command: str | Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    terminal: Mapping[str, int] | None = None,
) -> dict[str, Any]:  # Any: JSON, as the agent reads it
    """Return a command as the agent is asked for it.

    Raises:
        ConfigError: It is empty, holds a NUL, is no text, or is larger than the kernel takes.
    """
    if isinstance(command, str):
        argv: list[str] = [*_SHELL, command]
    elif isinstance(command, Sequence):
        argv = list(command)
    else:
        raise ConfigError(f"command: expected text or a list of texts, got {_type(command)}")
    if not argv or argv[0] == "":
        raise ConfigError("command: is empty; name a program to run")
    if not isinstance(env, Mapping | None):
        raise ConfigError(f"env: expected a mapping of names to texts, got {_type(env)}")
    texts = [("command", text) for text in argv]
    texts += [] if cwd is None else [("cwd", cwd)]
    for name, value in (env or {}).items():
        texts += [("env", name), (f"env.{name}", value)]
        if isinstance(name, str) and (not name or "=" in name):
            raise ConfigError(f"env: {name!r} is no variable's name; it must not hold =")
    for path, value in texts:
        if len(_encoded(text(value, path))) > _LONGEST_ARGUMENT:
            raise ConfigError(
                f"{path}: longer than the kernel's {_LONGEST_ARGUMENT} bytes for one argument; "
                "pass it by stdin= or write it to a file"
            )
    if sum(len(value) for _, value in texts) > _LARGEST:
        raise ConfigError(
            f"command: more than {_LARGEST} characters with its environment; write them to files"
        )
    request: dict[str, Any] = {"argv": argv, "cwd": cwd, "env": dict(env or {})}
    return request if terminal is None else {**request, "terminal": terminal}


def terminal(columns: int, rows: int) -> dict[str, int]:
    """Return a terminal's size.

    Raises:
        ConfigError: It is none that a terminal can have.
    """
    for value, path in ((columns, "columns"), (rows, "rows")):
        if not isinstance(value, int) or not 1 <= value <= _MOST_CELLS:
            raise ConfigError(f"{path}: expected a whole number from 1 to 65535, got {value!r}")
    return {"columns": columns, "rows": rows}


def text(value: str, path: str) -> str:
    """Return a text that the kernel can take: as an argument, a variable or a file's path.

    Raises:
        ConfigError: It is no text, holds a NUL, or a character that bytes cannot give.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{path}: expected text, got {_type(value)}")
    if "\0" in value:
        raise ConfigError(f"{path}: holds a NUL character, which no argument can")
    try:
        _encoded(value)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path}: {value[error.start]!r} is half a character") from error
    return value


def code(source: str) -> str:
    """Return source code.

    Raises:
        ConfigError: It is no text.
    """
    if not isinstance(source, str):
        raise ConfigError(f"code: expected text, got {_type(source)}")
    return source


def content(data: bytes | str | None, path: str = "stdin") -> bytes:
    """Return what a program reads or a file holds as bytes; text as UTF-8, nothing as no bytes.

    Raises:
        ConfigError: It is neither, or text that UTF-8 cannot write.
    """
    if data is None:
        return b""
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{path}: {data[error.start]!r} is half a character") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigError(f"{path}: expected bytes or text, got {_type(data)}")
    return bytes(data)


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path on the host.

    Raises:
        ConfigError: It is no path, is empty, or holds a character that no path can.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path: expected a path, got {_type(path)}")
    if not (words := text(os.fspath(path), "path")):
        raise ConfigError("path: is empty; name a folder")
    return Path(words)


def count(value: int | None, path: str) -> int | None:
    """Return a number of bytes, or ``None``.

    Raises:
        ConfigError: It is no whole number of at least 0.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigError(f"{path}: expected a whole number of at least 0, got {value!r}")
    return value


def signal_number(number: int) -> int:
    """Return the number of a signal.

    Raises:
        ConfigError: There is no such signal.
    """
    if not isinstance(number, int) or number not in valid_signals():
        raise ConfigError(f"number: {number!r} is no signal's number; pass signal.SIGINT or such")
    return number


def seconds(timeout: float | None) -> float | None:
    """Return a call's timeout.

    Raises:
        ConfigError: It is no finite number above 0.
    """
    return parse_seconds(timeout, "timeout")


def _encoded(text: str) -> bytes:
    """Return the bytes that the agent makes of a text; names that are no UTF-8 come through."""
    return text.encode("utf-8", "surrogateescape")


def _type(value: object) -> str:
    return type(value).__name__
