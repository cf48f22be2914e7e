"""What running code promises."""

from __future__ import annotations

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ConfigError, ProtocolError
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind


async def last_expression_is_the_result(client: AsyncSandboxClient) -> None:
    """The value of a last expression comes back as text; a statement gives none."""
    async with await client.create_sandbox("contract") as sandbox:
        value = await sandbox.run_code("x = 40\nprint('seen')\nx + 2")
        none = await sandbox.run_code("x = 40")
    assert (value.ended.kind, value.text, value.stdout) == (EndKind.OK, "42", "seen\n")
    assert (none.ended.kind, none.results) == (EndKind.OK, ())


async def exception_is_described(client: AsyncSandboxClient) -> None:
    """Code that raises says what, with a traceback that shows its own lines only."""
    async with await client.create_sandbox("contract") as sandbox:
        raised = await sandbox.run_code("print('before')\ndef f():\n    return 1 / 0\nf()")
        syntax = await sandbox.run_code("def (")
    assert raised.error is not None
    assert (raised.error.name, raised.error.message) == ("ZeroDivisionError", "division by zero")
    assert "return 1 / 0" in raised.error.traceback
    assert "sandbox_sdk" not in raised.error.traceback
    assert (raised.ended.kind, raised.stdout) == (EndKind.NONZERO, "before\n")
    assert syntax.error is not None
    assert syntax.error.name == "SyntaxError"


async def exit_code_of_code_is_kept(client: AsyncSandboxClient) -> None:
    """``sys.exit`` is no error, and its code is the end's."""
    async with await client.create_sandbox("contract") as sandbox:
        fresh = await sandbox.run_code("import sys; sys.exit(7)")
        kept = await sandbox.run_code("import sys; sys.exit(7)", context="kept")
        builtin = await sandbox.run_code("exit(7)")
        after = await sandbox.run_code("1", context="kept")
    for done in (fresh, kept, builtin):
        assert (done.ended.kind, done.ended.exit_code) == (EndKind.NONZERO, 7)
        assert done.error is None
    assert after.text == "1"


_AT_THE_END = """
import sys, time
def last(frame, event, _):
    if (event, frame.f_code.co_name) == ("return", "serve"): at_the_end()
sys.setprofile(last)
6 * 7
"""


async def next_call_finds_a_slow_process_gone(client: AsyncSandboxClient) -> None:
    """An answer need not wait for its process to end, and what is started next does."""
    slow = "def at_the_end(): time.sleep(0.2); open('ended', 'w').close()"
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code(slow + _AT_THE_END)
        found = await sandbox.run_command("ls")
    assert (done.ended.kind, done.text) == (EndKind.OK, "42")
    assert found.stdout == "ended\n"


async def pids(sandbox: AsyncSandbox) -> int:
    """Return how many processes a sandbox has, as the host counts them."""
    return (await sandbox.usage()).pids or 0


async def process_that_does_not_end_is_ended(client: AsyncSandboxClient) -> None:
    """A process that answered and goes on is ended soon, and before anything else begins."""
    endless = "def at_the_end(): open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.run_command("true")
        before = await pids(sandbox)
        first = await sandbox.run_code(f"import os\n{endless}{_AT_THE_END}")
        with anyio.fail_after(15):
            while await pids(sandbox) > before:
                pass
        second = await sandbox.run_code(f"import os\n{endless}{_AT_THE_END}")
        found = await sandbox.run_command("kill -0 $(cat pid)")
    for done in (first, second):
        assert (done.ended.kind, done.text) == (EndKind.OK, "42")
    assert found.ended.kind is EndKind.NONZERO


async def fresh_context_forgets(client: AsyncSandboxClient) -> None:
    """Without a context nothing of an earlier run is left."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.run_code("x = 1")
        done = await sandbox.run_code("x")
    assert done.error is not None
    assert done.error.name == "NameError"


async def kept_context_remembers(client: AsyncSandboxClient) -> None:
    """A named context keeps its variables, apart from other contexts."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.run_code("x = 1", context="one")
        await sandbox.run_code("x = 2", context="two")
        one = await sandbox.run_code("x", context="one")
        failed = await sandbox.run_code("1/0", context="one")
        two = await sandbox.run_code("print(x)\nx", context="two")
        again = await sandbox.run_code("x", context="one")
    assert (one.text, two.text, two.stdout, again.text) == ("1", "2", "2\n", "1")
    assert failed.error is not None


async def endless_code_is_ended(client: AsyncSandboxClient) -> None:
    """Past its time code is gone, and a kept context begins anew."""
    async with await client.create_sandbox("contract") as sandbox:
        fresh = await sandbox.run_code("print('on', flush=True)\nwhile True: pass", timeout=0.5)
        await sandbox.run_code("x = 1", context="kept")
        kept = await sandbox.run_code("while True: pass", context="kept", timeout=0.5)
        anew = await sandbox.run_code("'x' in globals()", context="kept")
    assert (fresh.ended.kind, fresh.stdout) == (EndKind.TIMEOUT, "on\n")
    assert (kept.ended.kind, anew.text) == (EndKind.TIMEOUT, "False")


async def dead_context_is_told_apart(client: AsyncSandboxClient) -> None:
    """Code that kills its own process ends by the signal, not by an exception."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    async with await client.create_sandbox("contract") as sandbox:
        for context in (None, "kept"):
            done = await sandbox.run_code(code, context=context)
            assert (done.ended.kind, done.ended.signal) == (EndKind.SIGNAL, 9)


async def output_comes_before_the_result(client: AsyncSandboxClient) -> None:
    """Everything written before the code ended belongs to that run, child processes included."""
    code = "import subprocess\nsubprocess.run(['echo', 'child'])\nprint('x' * 500_000)\n'done'"
    async with await client.create_sandbox("contract") as sandbox:
        first = await sandbox.run_code(code, context="kept")
        second = await sandbox.run_code("print('second')", context="kept")
    assert first.stdout == "child\n" + "x" * 500_000 + "\n"
    assert (first.text, second.stdout) == ("'done'", "second\n")


async def large_value_is_cut_and_says_so(client: AsyncSandboxClient) -> None:
    """The text of a value is bounded."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code("'x' * 3_000_000")
    assert done.text is not None
    assert len(done.text) < 300_000
    assert "left out" in done.text


async def half_characters_are_replaced(client: AsyncSandboxClient) -> None:
    """What is no character, and could be neither printed nor stored, comes as U+FFFD."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code(r"raise ValueError('\ud800 \U0001f600')")
    assert done.error is not None
    assert done.error.message == "\ufffd \U0001f600"
    assert done.error.traceback.encode().endswith("\U0001f600\n".encode())


async def forged_result_is_refused(client: AsyncSandboxClient) -> None:
    """Code that writes its own result gets a typed error, quickly, and harms nothing else."""
    forged = (
        r"b'{}\n'",
        r"b'not json\n'",
        r"b'[' * 100_000 + b'\n'",
        r"""b'{"results": [], "results": []}\n'""",
        r"""b'{"results": [{"text/plain": NaN}]}\n'""",
        r"b'x' * 3_000_000",
    )
    async with await client.create_sandbox("contract") as sandbox:
        for text in forged:
            code = (
                "import os\n"
                "for fd in range(3, 64):\n"
                f"    try: os.write(fd, {text})\n"
                "    except OSError: pass\n"
                "os._exit(0)"
            )
            try:
                done = await sandbox.run_code(code, timeout=10)
            except ProtocolError:
                continue
            raise AssertionError(f"{text[:30]} was taken for a result: {done}")
        assert (await sandbox.run_code("1 + 1")).text == "2"


async def bash_is_a_language(client: AsyncSandboxClient) -> None:
    """Shell code runs as code; an unknown language is refused."""
    async with await client.create_sandbox("contract") as sandbox:
        done = await sandbox.run_code("echo $((40 + 2))", language="bash")
        try:
            await sandbox.run_code("1", language="cobol")
        except ConfigError as error:
            assert "cobol" in str(error)
        else:
            raise AssertionError("cobol was not refused")
    assert (done.stdout, done.ok) == ("42\n", True)


async def packages_of_the_host_can_be_imported(client: AsyncSandboxClient) -> None:
    """Packages of the SDK's own environment are there, read-only."""
    code = "import attrs\nopen(attrs.__file__, 'a')"
    async with await client.create_sandbox("contract", template="host") as sandbox:
        done = await sandbox.run_code(code)
        shell = await sandbox.run_command(["python", "-c", "import attrs; print('ok')"])
    assert done.error is not None
    assert done.error.name in ("OSError", "PermissionError")
    assert shell.stdout == "ok\n"


CHECKS = (
    last_expression_is_the_result,
    exception_is_described,
    exit_code_of_code_is_kept,
    next_call_finds_a_slow_process_gone,
    process_that_does_not_end_is_ended,
    fresh_context_forgets,
    kept_context_remembers,
    endless_code_is_ended,
    dead_context_is_told_apart,
    output_comes_before_the_result,
    large_value_is_cut_and_says_so,
    half_characters_are_replaced,
    forged_result_is_refused,
    bash_is_a_language,
    packages_of_the_host_can_be_imported,
)
