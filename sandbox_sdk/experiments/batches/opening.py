"""What a model is told first, and how it is to ask for tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.tools import code_blocks
from sandbox_sdk.experiments.tools.tool_kinds import programs_of


def uses_blocks(config: ExperimentConfig, *, supports_tools: bool) -> bool:
    """Return whether the model asks for tools by a code block in its answer.

    Args:
        config: The experiment.
        supports_tools: Whether the provider's models can be expected to use OpenAI's ``tools``.
    """
    return bool(config.tools) and (
        config.tool_format == "code_block" or (config.tool_format == "auto" and not supports_tools)
    )


# Any: a message is JSON in OpenAI's form.
def opening(config: ExperimentConfig, *, blocks: bool) -> list[Mapping[str, Any]]:
    """Return the messages that a conversation begins with.

    Args:
        config: The experiment.
        blocks: Whether tools are asked for by code blocks.
    """
    system = [config.system] if config.system else []
    if blocks:
        system.append(
            code_blocks.instructions(programs_of(config.tools), single_turn=config.single_turn)
        )
    messages: list[Mapping[str, Any]] = list(config.messages)
    if config.prompt is not None:
        messages.append({"role": "user", "content": config.prompt})
    if system:
        messages.insert(0, {"role": "system", "content": "\n\n".join(system)})
    return messages
