"""Models on this machine, by llama.cpp, each in a sandbox of its own without network.

A model file is code for a parser with a record of memory errors, so it is read inside one of our
sandboxes: the file is bound read-only, calls go in and answers come out as JSON lines.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import ModelError, ModelNotFound, ModelTimeout
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.chat import parse_completion
from sandbox_sdk.experiments.models.local_files import file_sha256, find_model_file
from sandbox_sdk.experiments.models.local_process import CONTEXT_TOKENS, LocalProcess
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.values import ModelHost

DEFAULT_MAX_TOKENS = 1024
"""What a call without ``max_tokens`` may answer: small models can talk without end."""

_BYTES_PER_TOKEN = 128
# No tokenizer packs more into a token. Longer conversations cannot fit, and are refused unread:
# tokenizing 10 MB takes the library 20 seconds and 1.5 GB.

_ONE_ANSWER = "one at a time: a local model gives one answer per call"


class LocalProvider:
    """Answers with llama.cpp. A model is loaded on first use and kept for the next experiments.

    Args:
        host: Starts the sandboxes; without it no local model can be called.
        models_dir: Where ``sandbox-sdk models install`` keeps files.
        environ: Where ``SANDBOX_LOCAL_MODEL`` is looked up; by default the process's.
    """

    name = "local"
    supports_tools = False  # models of this size write code blocks, but no tool calls

    def __init__(
        self,
        host: ModelHost | None,
        *,
        models_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._host = host
        self._models_dir = models_dir
        self._environ = os.environ if environ is None else environ
        self._processes: dict[Path, LocalProcess] = {}

    async def check(self, request: ModelRequest) -> None:
        """Go on if the model's file, llama.cpp and a place to run it are there.

        Raises:
            ModelNotFound: The file or llama.cpp is not installed.
            ModelError: The file is no model, or the config asks for what llama.cpp cannot do.
        """
        await anyio.to_thread.run_sync(self._find, request.model)
        if request.parameters.get("n", 1) > 1:
            raise ModelError(
                f"parameters.n must be 1 for local/{request.model}, {_ONE_ANSWER}",
                model=f"local/{request.model}",
            )

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Call the model once.

        Raises:
            ModelTimeout: It did not answer in time; it is started anew for the next call.
            ModelError: It cannot answer.
        """
        path = await anyio.to_thread.run_sync(self._find, request.model)
        if _size(request) > CONTEXT_TOKENS * _BYTES_PER_TOKEN:
            return ModelOutput(
                stop_reason="model_length",
                finish_reason="context_length_exceeded",
                usage=TokenUsage(),
            )
        process = self._processes.get(path)
        if process is None:
            process = self._processes[path] = LocalProcess(self._require_host(), path)
        body = _body(request)
        try:
            with anyio.fail_after(request.attempt_timeout):
                answer = await process.call(body)
        except TimeoutError:
            raise ModelTimeout(
                f"local/{request.model} gave no complete answer within "
                f"{request.attempt_timeout:g} s; lower max_tokens, or raise "
                "retries.attempt_timeout",
                model=f"local/{request.model}",
                retryable=True,
            ) from None
        return await self._read(answer, request, path)

    async def aclose(self) -> None:
        """End every model's process."""
        while self._processes:
            _, process = self._processes.popitem()
            await process.aclose()

    def _find(self, model: str) -> Path:
        path = find_model_file(model, self._models_dir, self._environ)
        if importlib.util.find_spec("xllamacpp") is None:
            raise ModelNotFound(
                f"local/{model} needs llama.cpp, which is not installed; "
                'run: pip install "sandbox-sdk[local]"',
                model=f"local/{model}",
            )
        self._require_host()
        return path

    def _require_host(self) -> ModelHost:
        if self._host is None:
            raise ModelError("local models need a client that starts sandboxes on this machine")
        return self._host

    # Any: JSON from the worker, whose every field is checked.
    async def _read(self, answer: Any, request: ModelRequest, path: Path) -> ModelOutput:
        model = f"local/{request.model}"
        match answer:
            case {"failed": reason}:
                raise ModelError(f"{model} cannot answer: {str(reason)[:500]}", model=model)
            case {"response": {"error": {"type": "exceed_context_size_error" as kind}}}:
                return ModelOutput(stop_reason="model_length", finish_reason=kind)
            case {"response": {"error": {"message": reason}}}:
                raise ModelError(f"{model} refused the call: {str(reason)[:500]}", model=model)
            case {"response": response}:
                output = parse_completion(response, model)
            case _:
                raise ModelError(f"{model} answered with something that is no answer", model=model)
        warnings = output.warnings
        if output.stop_reason == "max_tokens" and "max_tokens" not in request.parameters:
            warnings = (
                *warnings,
                f"the answer was cut at {DEFAULT_MAX_TOKENS} tokens, as no max_tokens was given",
            )
        digest = await anyio.to_thread.run_sync(_digest, path)
        return attrs.evolve(
            output,
            response_model=path.name,
            system_fingerprint=f"sha256:{digest}",
            request_id=None,
            warnings=warnings,
        )


def _digest(path: Path) -> str:
    stat = path.stat()
    return file_sha256(path, stat.st_size, stat.st_mtime_ns)


def _size(request: ModelRequest) -> int:
    return sum(len(str(message.get("content") or "")) for message in request.messages)


def _body(request: ModelRequest) -> dict[str, Any]:
    """Return the call in llama.cpp's form, which is OpenAI's with more names."""
    body = dict(request.parameters)
    body |= body.pop("extra_body", {})
    body.pop("extra_headers", None)  # there is no HTTP on the way
    body.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    body["messages"] = list(request.messages)
    if request.tools:
        body["tools"] = list(request.tools)
    # Reuse of an earlier call's work changes rounding, and so the text for a seed.
    body["cache_prompt"] = False
    return body
