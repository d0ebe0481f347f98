"""The decoder's child process: locks itself in, then turns bytes into results.

By the time it sees a byte of an upload it cannot open files or sockets, start programs, signal or
inspect other processes, nor grow beyond its memory. It was started with an empty environment. What
it takes: on Linux with libseccomp an allow-list of system calls; elsewhere only the limits hold
(``pixsift doctor`` and a warning of the consumer tell).
"""

import ctypes
import io
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from PIL import Image, ImageCms

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.recipe import DecodeLimits
from pixsift.core.images import DecodeFailure, DecodeResult

OUT_OF_MEMORY: Final = 12
"""Exit status of a child that met its memory limit (ENOMEM)."""

Decode = Callable[[bytes, int, DecodeLimits], DecodeResult]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4

ALLOWED_SYSCALLS: Final = (
    # talk over the pipes that are already open
    "read", "write", "readv", "writev", "close", "poll", "ppoll", "select", "pselect6", "lseek",
    "fstat", "newfstatat",
    # memory
    "mmap", "munmap", "mremap", "mprotect", "madvise", "brk",
    # time, locks, signals of its own
    "futex", "clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "setitimer", "getitimer", "getpid", "gettid", "getppid", "sched_yield", "getrusage",
    "getrlimit", "setrlimit", "sysinfo", "sched_getaffinity", "rseq",
    "exit", "exit_group",
)  # fmt: skip

_F_GETFD, _F_SETFD, _F_GETFL = 1, 2, 3
ALLOWED_WITH: Final = (
    ("prlimit64", 0, 0),  # of itself: another process of the user could be starved with it
    # F_SETOWN and F_SETSIG would let the kernel send any signal to any process of the user
    ("fcntl", 1, _F_GETFD), ("fcntl", 1, _F_SETFD), ("fcntl", 1, _F_GETFL),
)  # fmt: skip
"""System calls that are allowed with one value of one argument: name, argument, value."""

NETWORK_SYSCALLS: Final = (
    "socket", "connect", "bind", "listen", "accept", "accept4", "io_uring_setup",
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
)  # fmt: skip


def enter_sandbox(limits: DecodeLimits, decode: str) -> None:
    """Pebble's initializer: load everything that will ever be needed, then shut the door."""
    _warm_up(limits)
    load_decoder(decode)
    _limit_memory(limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        install_seccomp()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends even a decoder that never returns


def decode_chunk(
    blobs: Sequence[bytes], input_side: int, limits: DecodeLimits, decode: str
) -> list[bytes]:
    """Decode a few images; each result is packed for the border. A crash takes the chunk."""
    function = load_decoder(decode)
    return [_decode_one(function, blob, input_side, limits) for blob in blobs]


def forbid_inspection() -> None:
    """No process of the same user may read this one's memory or environment (Linux).

    Called by processes that hold credentials beside a decoder; a debugger cannot attach either.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def seccomp_available() -> bool:
    """Whether this machine can restrict system calls."""
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, OSError, RuntimeError, AttributeError):
        return False
    return sys.platform == "linux"


def load_decoder(name: str) -> Decode:
    """``module:function`` to the function."""
    module, _, function = name.partition(":")
    loaded: Decode = getattr(import_module(module), function)
    return loaded


def install_seccomp() -> None:
    """Every system call outside the list fails with EPERM; nothing can undo it."""
    if not seccomp_available():
        return
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(1))
    for name in ALLOWED_SYSCALLS:
        try:
            rules.add_rule(pyseccomp.ALLOW, name)
        except (OSError, ValueError):
            continue  # not a system call of this architecture
    for name, argument, value in ALLOWED_WITH:
        rules.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(argument, pyseccomp.EQ, value))
    rules.load()


def forbid_network() -> None:
    """No sockets and no looking into other processes, for this process and all it starts.

    For the host: it reads the pickles of children that a file may have taken over.
    """
    if not seccomp_available():
        return
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in NETWORK_SYSCALLS:
        try:
            rules.add_rule(pyseccomp.ERRNO(1), name)
        except (OSError, ValueError):
            continue  # not a system call of this architecture
    rules.load()


def _decode_one(function: Decode, blob: bytes, input_side: int, limits: DecodeLimits) -> bytes:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + limits.wall_seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds) + 1, hard))
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
    try:
        result = function(blob, input_side, limits)
    except MemoryError:
        result = DecodeFailure("decoder_memory", f"more than {limits.memory_bytes} bytes")
    except Exception as error:  # nothing may leave as a pickled exception
        result = DecodeFailure("decoder_crash", type(error).__name__)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if isinstance(result, DecodeFailure) and result.reason == "decoder_memory":
        # The file's fault or a child grown old? A second try, alone, in another child, will tell.
        os._exit(OUT_OF_MEMORY)
    return wire.pack_result(result)


def _limit_memory(memory_bytes: int) -> None:
    """Address space in all, what the interpreter maps already included."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _warm_up(limits: DecodeLimits) -> None:
    """Import lazily loaded plugins and codecs while files can still be opened."""
    Image.init()
    ImageCms.createProfile("sRGB")
    picture = Image.new("RGB", (64, 64), (10, 200, 30))
    for image_format in limits.formats:
        out = io.BytesIO()
        options: dict[str, Any] = {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}
        picture.save(out, image_format, **(options if image_format == "JPEG" else {}))
        _recipe()(out.getvalue(), 32, limits)
        _recipe()(out.getvalue()[: len(out.getvalue()) // 2], 32, limits)


def _recipe() -> Decode:
    return load_decoder("pixsift.adapters.decode.recipe:decode_image")
