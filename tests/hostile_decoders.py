"""Decoders that misbehave on command: what a hijacked or broken one could do.

The first bytes of a blob say what happens; anything else is decoded as usual.
"""

import ctypes
import fcntl
import os
import pickle
import resource
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
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
    if word == "eavesdrop":
        return DecodeFailure("corrupt", f"read {_eavesdrop()}")
    if word.startswith("forge:"):
        _, name, proof = bytes(blob).decode("latin-1").split("\n")[0].split(":", 2)
        _write_to_every_pipe(FORGERIES[name](proof))
    if word.startswith("try:"):
        return DecodeFailure("corrupt", _attempt(word[4:]))  # of reasons that may cross
    return decode_image(blob, input_side, limits)


def balloon(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodeResult:
    """Take memory until there is none."""
    hoard = []
    while True:
        hoard.append(np.empty(2**26, np.uint8))  # asked for, never touched: quick anywhere


def _eavesdrop() -> int:
    """Bytes that any pipe of this process brings within a moment."""
    poll = select.poll()
    for descriptor in range(3, 16):
        poll.register(descriptor, select.POLLIN)
    heard = 0
    for descriptor, _ in poll.poll(300):
        with suppress(OSError):  # not open, or not for reading
            heard += len(os.read(descriptor, 2**20))
    return heard


def _write_to_every_pipe(data: bytes) -> None:
    for descriptor in range(3, 16):
        with suppress(OSError):
            os.write(descriptor, data)


class _Run:
    """Unpickled, it leaves a file: what an exploit of a pickle does first."""

    def __init__(self, proof: str) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.proof,)


def _pickle(proof: str) -> bytes:
    data = pickle.dumps(_Run(proof))
    return struct.pack("!i", len(data)) + data


FORGERIES: dict[str, Callable[[str], bytes]] = {
    "pickle": _pickle,
    "number": lambda _: struct.pack("<QIQ", 999_999, 1, 2) + b"{}",
    "parts": lambda _: struct.pack("<QI", 1, 2**31),
    "size": lambda _: struct.pack("<QIQ", 1, 1, 2**40),
}


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
