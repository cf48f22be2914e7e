"""A small machine of its own kernel, in QEMU without hardware help, that runs one Python program.

Its disk is made from what is installed here: this interpreter, the SDK with what it imports, and
busybox. Nothing of the host is written, and the machine has no network.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = "/packages"
PROGRAM = "/program.py"

_QEMU = "qemu-system-x86_64"
_MEMORY = "1G"
_DISK = "512M"
SECONDS = 300
"""Longest run of the machine."""

# In the order in which they depend on each other.
_MODULES = (
    "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
    "virtio_blk",
)  # fmt: skip
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "etc", "var", "usr/bin", "usr/lib64")
_COMMANDS = ("sh", "chmod", "mount", "poweroff")
_NOT_NEEDED = ("site-packages", "dist-packages", "test", "idlelib", "tkinter", "lib2to3", "turtle*",
               "config-*", "ensurepip", "*.a")  # fmt: skip
# Loaded on use only, and large.
_UNUSED = {"aiohttp", "openai"}
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")

_INIT = """#!/bin/busybox sh
set -e
/bin/busybox mkdir -p /dev /proc /new
/bin/busybox mount -t devtmpfs dev /dev
for name in {modules}; do /bin/busybox insmod /$name.ko; done
/bin/busybox mount -t ext4 /dev/vda /new
exec /bin/busybox switch_root /new /usr/bin/sh /start
"""
_START = """mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
chmod 1777 /tmp
export HOME=/root PATH=/usr/bin PYTHONPATH={packages} PYTHONDONTWRITEBYTECODE=1
{python} -X utf8 {program}
poweroff -f
"""


def run(program: Path, kernel: Path, folder: Path) -> str:
    """Boot the machine, let it run a program as root, and return what it wrote.

    Args:
        program: A Python program that needs nothing but the SDK.
        kernel: An unpacked kernel package: ``boot/vmlinuz-*`` and ``lib/modules``.
        folder: Where its disk is made; some 200 MB.

    Raises:
        TimeoutError: It did not end within five minutes.
    """
    disk = _disk(program, folder)
    initial = _initial(kernel, folder)
    (image,) = kernel.glob("boot/vmlinuz-*")
    argv = [
        *(_QEMU, "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", _MEMORY, "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(image), "-initrd", str(initial)),
        *("-append", "console=ttyS0 quiet loglevel=0 panic=-1 mitigations=off random.trust_cpu=on"),
        *("-drive", f"file={disk},format=raw,if=virtio,snapshot=on"),
    ]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode("utf-8", "replace")
        raise TimeoutError(f"the machine did not end within {SECONDS} s: {said}") from error
    return done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")


def _disk(program: Path, folder: Path) -> Path:
    """Make a disk with all that the program needs."""
    root = folder / "root"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, target in {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}.items():
        (root / name).symlink_to(target)
    (root / "usr/lib").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/ld.so.cache").touch()
    _copy(Path(_busybox()), root, "/usr/bin/busybox")
    _copy(Path("/bin/bash"), root, "/usr/bin/bash")
    for name in _COMMANDS:
        (root / "usr/bin" / name).symlink_to("busybox")
    python = _python(root)
    _packages(root)
    shutil.copy(program, root / PROGRAM.lstrip("/"))
    (root / "start").write_text(
        _START.format(python=python, packages=PACKAGES, program=PROGRAM), encoding="utf-8"
    )
    for library in _libraries(_programs(root)):
        _copy(Path(library), root, os.path.join(os.path.realpath(os.path.dirname(library)),
                                                os.path.basename(library)))  # fmt: skip
    disk = folder / "disk.img"
    subprocess.run(
        ["/usr/sbin/mkfs.ext4", "-qq", "-O", "^has_journal", "-d", str(root), str(disk), _DISK],
        check=True,
    )
    return disk


def _python(root: Path) -> str:
    """Copy this interpreter with its standard library; return its path."""
    base = Path(sys.base_prefix).resolve()
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(
        base / library,
        root / str(base / library).lstrip("/"),
        ignore=shutil.ignore_patterns(*_NOT_NEEDED),
        dirs_exist_ok=True,
    )
    _copy(python, root, str(python))
    return str(python)


def _packages(root: Path) -> None:
    """Copy the SDK from the sources that are tested, and what it imports."""
    target = root / PACKAGES.lstrip("/")
    sources = Path(__file__).resolve().parents[2]
    shutil.copytree(sources / "sandbox_sdk", target / "sandbox_sdk")
    for name in _requirements("sandbox-sdk"):
        for file in importlib.metadata.files(name) or ():
            source = Path(str(file.locate()))
            if ".." not in file.parts and source.is_file():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / file)


def _requirements(name: str) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        for text in importlib.metadata.requires(todo.pop()) or ():
            needed = re.match(r"[\w.-]+", text)
            if needed is None or "extra ==" in text or needed[0].lower() in {*found, *_UNUSED}:
                continue
            try:
                importlib.metadata.distribution(needed[0])
            except importlib.metadata.PackageNotFoundError:
                continue  # for another system or Python
            found.add(needed[0].lower())
            todo.append(needed[0])
    return found


def _programs(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _libraries(programs: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for program in programs:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        found.update(_LIBRARY.findall(said.stdout))
    return found


def _copy(source: Path, root: Path, target: str) -> None:
    path = root / target.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, path)


def _busybox() -> str:
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("busybox is not installed: apt install busybox-static")
    return found


def _initial(kernel: Path, folder: Path) -> Path:
    """Make what the kernel starts from: just enough to find the disk."""
    files = {
        "init": _INIT.format(modules=" ".join(_MODULES)).encode(),
        "bin/busybox": Path(_busybox()).read_bytes(),
    }
    for name in _MODULES:
        (module,) = kernel.glob(f"lib/modules/*/kernel/**/{name}.ko")
        files[f"{name}.ko"] = module.read_bytes()
    archive = folder / "initial.cpio"
    with archive.open("wb") as out:
        out.write(_entry("bin", stat.S_IFDIR | 0o755, b""))
        for name, content in files.items():
            out.write(_entry(name, stat.S_IFREG | 0o755, content))
        out.write(_entry("TRAILER!!!", 0, b""))
    return archive


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """Return one entry of a ``newc`` archive. Source: initramfs buffer format, Linux."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in fields)
    return _padded(header + path) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
