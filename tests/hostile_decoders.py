"""Decoders that misbehave on command: what a hijacked or broken one could do.

The first bytes of a blob say what happens; anything else is decoded as usual.
"""

import ctypes
import fcntl
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.core.images import DecodeFailure, DecodeResult


def misbehave(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodeResult:
    """``segfault``, ``hang``, ``spin``, ``balloon``, ``exit``, or ``try:`` and a name below."""
    word = bytes(blob[:32]).split(b"\n")[0].decode("latin-1")
    if word == "segfault":
        ctypes.string_at(0)
    if word == "hang":
        time.sleep(3600)
    if word == "spin":
        while True:
            pass
    if word == "exit":
        os._exit(3)
    if word == "balloon":
        return balloon(blob, input_side, limits)
    if word.startswith("try:"):
        return DecodeFailure("tried", _attempt(word[4:]))
    return decode_image(blob, input_side, limits)


def balloon(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodeResult:
    """Take memory until there is none."""
    hoard = []
    while True:
        hoard.append(np.empty(2**26, np.uint8))  # asked for, never touched: quick anywhere


def _attempt(name: str) -> str:
    try:
        return f"done {ATTEMPTS[name]()}"
    except OSError as error:
        return f"refused {error.errno}"


_F_SETSIG = 10
"""Linux's; Python has no name for it."""

ATTEMPTS: dict[str, Callable[[], object]] = {
    "socket": socket.socket,
    "open": lambda: Path("/proc/self/environ").read_bytes(),
    "parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "write": lambda: Path("/tmp/decoder-was-here").write_bytes(b"x"),
    "fork": os.fork,
    "execute": lambda: subprocess.run(["/bin/true"], check=False),
    "kill": lambda: os.kill(os.getppid(), 15),
    "starve": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, (1, 1)),
    "own": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid()),
    "signal": lambda: fcntl.fcntl(1, _F_SETSIG, 10),
    "unblock": lambda: fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK),
    "environment": lambda: sorted(os.environ),
}
