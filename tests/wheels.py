"""Wheels made on the spot, and an index of them that uv and pip find nothing else beside."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def make_wheel(
    folder: Path,
    name: str = "tiny",
    version: str = "1.0",
    *,
    files: Mapping[str, str] | None = None,
    requires: str = "",
) -> Path:
    """Make the wheel of a package: a module that knows its version, and a program that tells it."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content = {
        f"{name}.py": f"VERSION = {version!r}\n\n\ndef main():\n    print(VERSION)\n",
        **(files or {}),
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-version = {name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**content, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def only_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let uv look for packages in one new folder and nowhere else; return the folder."""
    links = folder / "wheels"
    links.mkdir()
    configure(folder, monkeypatch, f'no-index = true\nfind-links = ["{links}"]\n')
    return links


def configure(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> None:
    """Configure uv with these settings only, and a cache of its own."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    (folder / "uv.toml").write_text(settings)
    monkeypatch.setenv("UV_CONFIG_FILE", str(folder / "uv.toml"))
    monkeypatch.setenv("UV_CACHE_DIR", str(folder / "cache"))
