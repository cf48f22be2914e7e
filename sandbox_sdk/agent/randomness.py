"""The random sources of a Python context, which a fork would leave alike in all sandboxes."""

from __future__ import annotations

import importlib.abc
import importlib.util
import random
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_NUMPY = "numpy.random"


def reseed(seed: int | None) -> None:
    """Seed ``random``, and ``numpy.random`` now or once it is imported.

    Args:
        seed: Makes them repeat; ``None`` is fresh randomness.
    """
    random.seed(seed)
    if (numpy_random := sys.modules.get(_NUMPY)) is not None:
        numpy_random.seed(seed)
    elif seed is not None:
        sys.meta_path.insert(0, _Finder(seed))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``numpy.random`` once, as the others would, and has it seeded after its import."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NUMPY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._seed)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module with another loader, then seeds it."""

    def __init__(self, loader: importlib.abc.Loader, seed: int) -> None:
        self._loader = loader
        self._seed = seed

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.seed(self._seed)
