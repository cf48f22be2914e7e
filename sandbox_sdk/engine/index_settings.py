"""Where uv is to look for packages: as it is configured itself, else as pip is.

uv reads no configuration of pip's, and many machines have only that one.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PIP_SECONDS = 60.0
_FROM_HOST = frozenset(
    {
        "HOME", "PATH", "TMPDIR", "NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT",
        "UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_CONSTRAINT", "UV_DEFAULT_INDEX", "UV_EXCLUDE_NEWER",
        "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER", "UV_NATIVE_TLS", "UV_NO_CONFIG", "UV_OFFLINE", "UV_SYSTEM_CERTS",
    }
)  # fmt: skip
"""Variables of ours that uv is given, besides proxies and ``UV_INDEX*``; nothing else enters."""

_WHERE = frozenset(
    {
        "UV_CONFIG_FILE", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX",
        "UV_INDEX_URL",
    }
)  # fmt: skip
"""Those by which uv is told where to look."""

_PIP_SECTIONS = ("global", "install", ":env:")  # the later goes before the earlier


def find() -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment and the flags to run uv with. Blocks."""
    environment = {"LANG": "C.UTF-8"} | {
        name: value
        for name, value in os.environ.items()
        if name in _FROM_HOST or name.startswith("UV_INDEX") or name.lower().endswith("_proxy")
    }
    if not _WHERE.isdisjoint(environment) or _has_file(environment):
        return environment, ()
    found, flags = translate(_pip_config())
    return {**found, **environment}, flags


def translate(config: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment and flags by which uv looks where pip does.

    Addresses may hold a password, so they go by the environment: a command line is seen by all.

    Args:
        config: What ``pip config list`` wrote.
    """
    values: dict[str, str] = {}
    lines = [line.partition("=") for line in config.splitlines()]
    for section in _PIP_SECTIONS:
        for name, _, text in lines:
            if name.startswith(f"{section}."):
                values[name.removeprefix(f"{section}.")] = str(ast.literal_eval(text))
    several = {key: value.split() for key, value in values.items()}
    environment = {
        "UV_DEFAULT_INDEX": values.get("index-url", ""),
        "UV_INDEX": " ".join(several.get("extra-index-url", ())),
        "UV_FIND_LINKS": ",".join(several.get("find-links", ())),
        "UV_CONSTRAINT": " ".join(several.get("constraint", ())),
        "UV_INSECURE_HOST": " ".join(several.get("trusted-host", ())),
        "UV_HTTP_TIMEOUT": values.get("timeout", values.get("default-timeout", "")),
        "SSL_CERT_FILE": values.get("cert", ""),
        "SSL_CLIENT_CERT": values.get("client-cert", ""),
        "ALL_PROXY": values.get("proxy", ""),
    }
    flags = (
        ("--no-index",) if values.get("no-index", "").lower() in ("1", "true", "yes", "on") else ()
    )
    return {name: value for name, value in environment.items() if value}, flags


def _has_file(environment: Mapping[str, str]) -> bool:
    """Whether uv has a configuration file of its own. Source: its page on configuration files."""
    own = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    system = environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    folders = [own, *system, "/etc"]
    return any((Path(folder) / "uv/uv.toml").is_file() for folder in folders if folder)


def _pip_config() -> str:
    """Return what pip says it is configured with; nothing where there is no pip."""
    programs = [[sys.executable, "-P", "-m", "pip"]]
    if pip := shutil.which("pip"):
        programs.append([pip])
    for program in programs:
        ran = subprocess.run(
            [*program, "config", "list"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_SECONDS,
            check=False,
        )
        if ran.returncode == 0:
            return ran.stdout
    return ""
