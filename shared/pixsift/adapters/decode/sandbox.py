"""The locks of a process that decodes untrusted bytes.

Each lock is tried by itself, because machines differ: ``lock_process`` returns the names of those
that hold, and ``pixsift doctor`` shows them. On Linux: an allow-list of system calls (libseccomp);
no access to any file, TCP port, signal or abstract socket outside of the process (Landlock, where
the kernel has it); limits on memory, files and core dumps; no new privileges. Elsewhere only the
limits hold.

Sources: seccomp(2); landlock(7) and its table of versions, https://docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import resource
import signal
import struct
import sys
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

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

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION_FLAG: Final = 1
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Landlock version -> how many rights over files it knows (bits from 0 up)."""
_NETWORK_SINCE: Final = 4
_SCOPES_SINCE: Final = 6


def lock_process(memory_bytes: int) -> tuple[str, ...]:
    """Apply every lock that this machine supports; returns the locks that hold.

    memory_bytes: address space in all, what the interpreter maps already included.
    Nothing can undo it. Call it when everything that will ever be needed is loaded.
    """
    held = []
    if sys.platform == "linux":  # elsewhere the limit counts differently
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        held.append("memory limit")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        rules = _seccomp_rules()  # before Landlock: finding libseccomp reads files
        if _restrict_with_landlock(libc):
            held.append("landlock")
        if rules is not None:
            rules.load()
            held.append("seccomp")
    return tuple(held)


def forbid_inspection() -> None:
    """No process of the same user may read this one's memory or environment (Linux).

    Called by processes that hold credentials and run a decoder; a debugger cannot attach either.
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


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_landlock_version(ctypes.CDLL(None, use_errno=True))))


def _seccomp_rules() -> Any:
    """Every system call outside the list will fail with EPERM; None without libseccomp."""
    if not seccomp_available():
        return None
    import pyseccomp

    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(1))
    for name in ALLOWED_SYSCALLS:
        try:
            rules.add_rule(pyseccomp.ALLOW, name)
        except (OSError, ValueError):
            continue  # not a system call of this architecture
    for name, argument, value in ALLOWED_WITH:
        rules.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(argument, pyseccomp.EQ, value))
    return rules


def _restrict_with_landlock(libc: ctypes.CDLL) -> bool:
    """Handle every right that this kernel knows, and grant none.

    A second lock on what seccomp forbids already, and the only one where libseccomp is missing.
    """
    version = _landlock_version(libc)
    if version < 1:
        return False
    files = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    network = 0b11 if version >= _NETWORK_SINCE else 0
    scopes = 0b11 if version >= _SCOPES_SINCE else 0
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _NETWORK_SINCE else 8
    rights = struct.pack("<QQQ", files, network, scopes)[:size]
    ruleset: int = libc.syscall(_LANDLOCK_CREATE_RULESET, rights, ctypes.c_size_t(size), 0)
    return ruleset >= 0 and bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)


def _landlock_version(libc: ctypes.CDLL) -> int:
    answer: int = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0),
                               _LANDLOCK_VERSION_FLAG)  # fmt: skip
    return answer
