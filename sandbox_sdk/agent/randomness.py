"""The random sources of a Python context, which a fork would leave alike in all sandboxes."""

from __future__ import annotations

import sys
from typing import Any

_NUMPY = "numpy.random"


def reseed(seed: int | None) -> None:
    """Seed ``random`` and ``numpy.random``, now or as they are imported.

    Args:
        seed: Makes them repeat; ``None`` is fresh randomness.
    """
    if seed is not None:
        import random  # costs a fork of each clone some pages, so not before it is asked for

        random.seed(seed)
    elif (loaded := sys.modules.get("random")) is not None:
        loaded.seed()
    if (loaded := sys.modules.get(_NUMPY)) is not None:
        loaded.seed(seed)
    elif seed is not None:
        sys.meta_path.insert(0, _SeededOnImport(seed))


class _SeededOnImport:
    """Finds ``numpy.random`` once, as the other finders would, and has it seeded once loaded."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    # Any, here and below: what the import system hands from one finder and loader to the next.
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != _NUMPY:
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None:
            self._loader: Any = spec.loader
            spec.loader = self  # type: ignore[assignment]  # quacks like one
        return spec

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        module.seed(self._seed)
