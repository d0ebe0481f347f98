"""A file system that stops answering, as a network share does whose server is gone.

A few files behind the kernel's FUSE interface, read-only: what is asked of a file (or of all, once
``hang_all`` is set) is never answered. Needs root and /dev/fuse; the protocol is that of
``include/uapi/linux/fuse.h``, version 7.
"""

import errno
import os
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH = 1, 2, 3, 14, 15, 18, 25
_INIT, _OPENDIR, _READDIR, _RELEASEDIR, _BATCH_FORGET = 26, 27, 28, 29, 42
_HEADER = struct.Struct("<IIQQIIII")
_OPENED = struct.pack("<QII", 0, 1, 0)
"""Direct: nothing of the file is kept in the page cache."""
_ROOT = 1
_LARGEST_REQUEST = 1 << 18


class HangingShare:
    """Context manager: the files of ``source``, mounted at ``folder`` within.

    A process of its own serves them: with it ends whatever waits for an answer, which nothing else
    could end, not even the end of the waiting process. Raises OSError where mounting is impossible.
    """

    def __init__(self, folder: Path, source: Path, *, hanging: str = "") -> None:
        """source: a folder with files only. hanging: name of a file whose bytes never come."""
        self._folder = folder
        self._arguments = [str(folder), str(source), hanging]

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._server.stdout is not None
        said = self._server.stdout.readline().strip()
        if said != "mounted":
            self.__exit__()
            raise OSError(errno.EPERM, said)
        return self

    def hang_all(self) -> None:
        """Answer nothing any more."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write("hang\n")
        self._server.stdin.flush()
        self._server.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()
        subprocess.run(["umount", "--lazy", str(self._folder)], capture_output=True, check=False)


class _Server:
    """Answers the kernel."""

    def __init__(self, source: Path, hanging: str) -> None:
        files = sorted(source.iterdir())
        self._names = [path.name for path in files]
        self._bodies = [path.read_bytes() for path in files]
        self._hanging = hanging
        self.hang_all = False
        self._device = os.open("/dev/fuse", os.O_RDWR)

    def mount(self, folder: str) -> str:
        """ "" or why not."""
        options = f"fd={self._device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        mounted = subprocess.run(
            ["mount", "-i", "-t", "fuse", "-o", f"ro,allow_other,{options}", "share", folder],
            pass_fds=[self._device], capture_output=True, text=True, check=False,
        )  # fmt: skip
        return mounted.stderr.strip() if mounted.returncode else ""

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _LARGEST_REQUEST)
            except OSError:
                return  # unmounted
            _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
            if opcode in (_FORGET, _BATCH_FORGET) or self._hangs(opcode, node):
                continue
            answer = self._answer(opcode, node, request[_HEADER.size :])
            error, body = (-answer, b"") if isinstance(answer, int) else (0, answer)
            with suppress(OSError):
                head = struct.pack("<IiQ", 16 + len(body), error, unique)
                os.write(self._device, head + body)

    def _hangs(self, opcode: int, node: int) -> bool:
        if opcode in (_INIT, _RELEASE, _RELEASEDIR):
            return False
        slow = opcode == _READ and node != _ROOT and self._names[node - 2] == self._hanging
        return slow or self.hang_all

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes | int:
        """The reply, or an error number."""
        answers: dict[int, Callable[[], bytes | int]] = {
            _INIT: lambda: struct.pack(
                "<IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 0, 0, 1 << 16, 1, 0, 0, 0
            ),
            _LOOKUP: lambda: self._entry(body.rstrip(b"\0").decode()),
            _GETATTR: lambda: struct.pack("<QII", 0, 0, 0) + self._attributes(node),
            _OPEN: lambda: _OPENED,
            _OPENDIR: lambda: _OPENED,
            _READ: lambda: self._part(node, body),
            _READDIR: lambda: self._listing(body),
            _RELEASE: lambda: b"", _RELEASEDIR: lambda: b"", _FLUSH: lambda: b"",
        }  # fmt: skip
        return answers[opcode]() if opcode in answers else errno.ENOSYS

    def _entry(self, name: str) -> bytes | int:
        if name not in self._names:
            return errno.ENOENT
        node = self._names.index(name) + 2
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self._attributes(node)

    def _part(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return self._bodies[node - 2][offset : offset + size]

    def _attributes(self, node: int) -> bytes:
        is_root = node == _ROOT
        size = 0 if is_root else len(self._bodies[node - 2])
        mode = stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644
        return struct.pack("<6Q3I7I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _listing(self, body: bytes) -> bytes:
        if struct.unpack_from("<QQI", body)[1]:
            return b""  # all of it came with the first answer
        entries = b""
        for place, name in enumerate(self._names):
            raw = name.encode()
            entry = struct.pack("<QQII", place + 2, place + 1, len(raw), 8) + raw
            entries += entry + b"\0" * (-len(entry) % 8)
        return entries


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """``hanging_share.py FOLDER SOURCE HANGING``: mount, and serve until standard input ends."""
    folder, source, hanging = sys.argv[1:4]
    try:
        server = _Server(Path(source), hanging)
        problem = server.mount(folder)
    except OSError as error:
        problem = str(error)
    _tell(problem or "mounted")
    if problem:
        return
    threading.Thread(target=server.serve, daemon=True).start()
    for _ in sys.stdin:
        server.hang_all = True
        _tell("hanging")


if __name__ == "__main__":
    main()
