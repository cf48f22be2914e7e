"""Templates: which Python world sandboxes see."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class TemplateInfo:
    """A template that was built on this machine.

    Attributes:
        key: Its digest, the name of its folder: of the interpreter and what was asked for.
        names: The names that users gave it, sorted.
        packages: The requirements it was built from.
        versions: What was installed, as ``name==version``, sorted.
        python: The interpreter's version.
        files: How many files it has.
        size_bytes: Their size together.
        sha256: The digest of all its files.
        made_at: When it was built, in seconds since the epoch.
        used_at: When a client last used it; ``None`` is never.
    """

    key: str
    names: tuple[str, ...] = ()
    packages: tuple[str, ...]
    versions: tuple[str, ...]
    python: str
    files: int
    size_bytes: int
    sha256: str
    made_at: float
    used_at: float | None = None
