"""Data frames and figures of the real packages come out as notebooks show them."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[AsyncSandbox]:
    async with (
        AsyncSandboxClient(state_dir=tmp_path) as client,
        await client.create_sandbox("shown") as sandbox,
    ):
        yield sandbox


async def test_data_frame_is_html_and_text(sandbox: AsyncSandbox) -> None:
    done = await sandbox.run_code("import pandas\npandas.DataFrame({'a': [1, 2]})")
    assert done.value is not None
    assert done.value.html is not None
    assert "<td>2</td>" in done.value.html
    assert done.text == "   a\n0  1\n1  2"


async def test_open_figures_are_pictures_and_closed(sandbox: AsyncSandbox) -> None:
    code = """
import matplotlib.pyplot as plt
plt.figure(figsize=(2, 1)); plt.plot([1, 2]); plt.show()
plt.figure(); plt.plot([3, 4])
'value'
"""
    done = await sandbox.run_code(code, context="kept")
    again = await sandbox.run_code("plt.get_fignums()", context="kept")
    assert done.ok
    assert [bundle.is_value for bundle in done.results] == [False, False, True]
    assert done.text == "'value'"
    for bundle in done.results[:2]:
        assert bundle.png is not None
        signature, _, width, height = struct.unpack("!8s8sII", bundle.png[:24])
        assert signature == b"\x89PNG\r\n\x1a\n"
        assert width > height > 50
    assert (again.text, len(again.results)) == ("[]", 1)


async def test_figure_that_is_the_value_is_shown_once(sandbox: AsyncSandbox) -> None:
    done = await sandbox.run_code("import matplotlib.pyplot as plt\nfig = plt.figure()\nfig")
    assert done.value is not None
    assert done.value.png is not None
    assert len(done.results) == 1


async def test_figure_that_cannot_be_drawn_is_said(sandbox: AsyncSandbox) -> None:
    """An artist that raises takes nothing but its own figure's picture."""
    code = """
import matplotlib.pyplot as plt
plt.figure().text(0, 0, "$\\\\nonsense$")
plt.figure()
"""
    done = await sandbox.run_code(code)
    assert done.ended.exit_code == 0
    assert [bundle.png is None for bundle in done.results] == [True, False]
    assert "savefig of Figure raised" in done.omitted[0]


async def test_matplotlib_is_not_imported_for_nothing(sandbox: AsyncSandbox) -> None:
    done = await sandbox.run_code("display([1])\nimport sys\n'matplotlib' in sys.modules")
    assert done.text == "False"
