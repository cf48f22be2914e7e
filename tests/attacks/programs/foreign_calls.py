"""Make system calls of other machines: i386 through ``int 0x80``, and x32."""

from __future__ import annotations

import ctypes
import mmap

from tried import attempt_in_child, call, check, tell

I386_GETPID, X32_GETPID = 20, 0x40000000 + 39


def int_0x80() -> None:
    """Run ``mov eax, 20; int 0x80; ret`` from a page of our own."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8" + I386_GETPID.to_bytes(4, "little") + b"\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    check(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


attempt_in_child("int 0x80", int_0x80)
attempt_in_child("x32", lambda: call(X32_GETPID))
tell()
