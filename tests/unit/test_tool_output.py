"""What a model reads of the code it ran."""

from __future__ import annotations

from sandbox_sdk.experiments.tools.tool_output import code_text
from sandbox_sdk.values import CodeResult, Ended, EndKind, MimeBundle


def test_all_that_was_shown_is_text() -> None:
    """Values displayed on the way, figures and the last value stand each on lines of its own."""
    result = CodeResult(
        ended=Ended(kind=EndKind.OK, exit_code=0),
        stdout="printed\n",
        results=(
            MimeBundle(data={"text/html": "<b>", "text/plain": "displayed"}),
            MimeBundle(data={"image/png": "aGk="}),
            MimeBundle(data={"text/plain": "42"}, is_value=True),
        ),
    )
    assert code_text(result) == "printed\ndisplayed\n42"
