"""What showing values promises: bundles of MIME types, in order, within bounds."""

from __future__ import annotations

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ProtocolError
from sandbox_sdk.values import EndKind

_RICH = """
class Rich:
    def __init__(self, name): self.name = name
    def __repr__(self): return f"Rich({self.name!r})"
    def _repr_html_(self): return f"<b>{self.name}</b>"
    def _repr_png_(self): return b"\\x89PNG" + self.name.encode()
    def _repr_json_(self): return {"name": [self.name, None]}
"""


async def values_are_shown_in_every_form(client: AsyncSandboxClient) -> None:
    """What is displayed comes in order, the value last, each in all the forms it has."""
    code = f"{_RICH}\ndisplay(Rich('one'), 2)\nprint('printed')\nRich('three')"
    async with await client.create_sandbox("contract") as sandbox:
        for context in (None, "kept"):
            done = await sandbox.run_code(code, context=context)
            assert [bundle.text for bundle in done.results] == ["Rich('one')", "2", "Rich('three')"]
            assert [bundle.is_value for bundle in done.results] == [False, False, True]
            first = done.results[0]
            assert (first.html, first.png) == ("<b>one</b>", b"\x89PNGone")
            assert first.json() == {"name": ["one", None]}
            assert (done.text, done.png, done.stdout) == (
                "Rich('three')",
                b"\x89PNGthree",
                "printed\n",
            )
            assert done.omitted == ()
        again = await sandbox.run_code("4", context="kept")
    assert [bundle.data for bundle in again.results] == [{"text/plain": "4"}]


async def bundles_are_taken_as_given(client: AsyncSandboxClient) -> None:
    """A value may give its whole bundle, and a bundle may be displayed itself."""
    code = """
class Given:
    def _repr_mimebundle_(self, include, exclude):
        return {"text/html": "<i>", "text/plain": "given", "x/y+json": [1]}, {"metadata": 1}
    def _repr_html_(self): raise AssertionError("asked twice")
display({"text/markdown": "*m*"}, raw=True)
display(Given(), metadata={}, display_id="7")
"""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code(code)
    assert [dict(bundle.data) for bundle in done.results] == [
        {"text/markdown": "*m*"},
        {"text/html": "<i>", "text/plain": "given", "x/y+json": "[1]"},
    ]
    assert (done.value, done.text, done.results[1].json("x/y+json")) == (None, None, [1])


async def what_was_shown_before_an_error_is_kept(client: AsyncSandboxClient) -> None:
    """Code that raises or exits has shown what it had shown."""
    async with await client.create_sandbox("contract") as sandbox:
        raised = await sandbox.run_code("display('before')\n1 / 0")
        left = await sandbox.run_code("display('before')\nexit(3)")
    assert raised.error is not None
    assert [bundle.text for bundle in raised.results] == ["'before'"]
    assert ([bundle.text for bundle in left.results], left.ended.exit_code) == (["'before'"], 3)


async def forms_that_fail_are_left_out_and_said(client: AsyncSandboxClient) -> None:
    """Whatever a value's methods do, its text is there, and what is missing is said."""
    code = """
deep = []
for _ in range(100_000): deep = [deep]
class Bad:
    def __repr__(self): return "bad"
    def _repr_mimebundle_(self, **kw): return {5: "x", "no type": "x", "a/b": object(), "c/d": "ok"}
    def _repr_html_(self): raise RuntimeError("no")
    def _repr_markdown_(self): return None
    def _repr_latex_(self): return 5
    def _repr_png_(self): return b"x" * 50_000_000
    def _repr_json_(self): return deep if self.deep else float("nan")
    deep = False
display(Bad())
Bad.deep = True
Bad()
"""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code(code)
        many = await sandbox.run_code("for i in range(2000): display(i)\n'last'", context="kept")
        after = await sandbox.run_code("display(1)", context="kept")
    assert done.ended.kind is EndKind.OK
    assert [dict(bundle.data) for bundle in done.results] == 2 * [
        {"text/plain": "bad", "c/d": "ok"}
    ]
    said = "\n".join(done.omitted)
    for words in ("no MIME type", "a/b", "_repr_html_", "RuntimeError", "image/png", "no JSON"):
        assert words in said, words
    assert "markdown" not in said
    assert len(many.results) < 300
    assert many.text == "'last'"
    assert many.omitted[-1].endswith("more")
    assert (len(after.results), after.omitted) == (1, ())


async def all_that_is_shown_is_bounded(client: AsyncSandboxClient) -> None:
    """One run shows a few megabytes; a large picture passes, what is more is left out."""
    code = """
class Picture:
    def __init__(self, size): self.size = size
    def _repr_png_(self): return bytes(self.size)
display(Picture(2_000_000), Picture(2_000_000))
display("\\n" * 10_000_000)
'é"\\x01' * 1_000_000
"""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code(code)
    assert done.ended.kind is EndKind.OK
    assert done.results[0].png == bytes(2_000_000)
    assert done.results[1].png is None
    assert "image/png" in done.omitted[0]
    assert done.text is not None
    assert "left out" in done.text
    assert sum(len(text) for bundle in done.results for text in bundle.data.values()) < 6_000_000


async def content_is_checked_when_it_is_read(client: AsyncSandboxClient) -> None:
    """Content that is not what its type says is a ProtocolError for who reads it."""
    code = """
display({"image/png": "no base64!", "text/plain": "half \\ud800", "x/y+json": "z"}, raw=True)
class Json:
    def _repr_mimebundle_(self, **kw): return {"application/json": 5, "image/svg+xml": "<svg/>"}
Json()
"""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code(code)
    shown, value = done.results
    assert (shown.text, shown.json("x/y+json"), value.json()) == ("half \ufffd", "z", 5)
    assert value.data["image/svg+xml"] == "<svg/>"
    try:
        _ = done.png
    except ProtocolError as error:
        assert "base64" in str(error)
    else:
        raise AssertionError("what is no base64 was decoded")


CHECKS = (
    values_are_shown_in_every_form,
    bundles_are_taken_as_given,
    what_was_shown_before_an_error_is_kept,
    forms_that_fail_are_left_out_and_said,
    all_that_is_shown_is_bounded,
    content_is_checked_when_it_is_read,
)
