"""Reads vectors by binary COPY: rows of bigints and one halfvec, all of one size.

No value is converted one by one: a million rows of 384 dimensions are one array of bytes. Layout:
https://www.postgresql.org/docs/18/sql-copy.html, "Binary Format".
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from pixsift.errors import ConflictError

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_BLOCK_BYTES = 8 << 20

CopiedRows = tuple[NDArray[np.int64], NDArray[np.float16]]
"""Of N rows: the bigints (N, columns), the vectors (N, D)."""


def copy_vectors(
    connection: Connection[Any],
    statement: LiteralString,
    names: Mapping[str, Any],
    *,
    bigints: int,
    dimension: int,
) -> Iterator[CopiedRows]:
    """Run ``COPY (SELECT <bigints>, <halfvec>) TO STDOUT (FORMAT binary)``; rows in blocks.

    Raises ConflictError for a vector of another dimension.
    """
    with connection.cursor().copy(statement, names) as copy:
        yield from read_vectors(map(bytes, copy), bigints=bigints, dimension=dimension)


def read_vectors(data: Iterable[bytes], *, bigints: int, dimension: int) -> Iterator[CopiedRows]:
    """The rows of a binary COPY that comes in pieces of any size."""
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("integers", [("size", ">i4"), ("value", ">i8")], (bigints,)),
            ("size", ">i4"),
            ("dimension", ">u2"),
            ("unused", ">u2"),
            ("halves", ">f2", (dimension,)),
        ]
    )
    pending, begun = bytearray(), False
    for piece in data:
        pending += piece
        if len(pending) < _BLOCK_BYTES:
            continue
        begun = _begin(pending, begun)
        whole = (len(pending) - len(_END)) // row.itemsize * row.itemsize
        yield _rows(bytes(pending[:whole]), row)
        del pending[:whole]
    _begin(pending, begun)
    if not pending.endswith(_END) or (len(pending) - len(_END)) % row.itemsize:
        raise _mismatch(dimension)
    if len(pending) > len(_END):
        yield _rows(bytes(pending[: -len(_END)]), row)


def _begin(pending: bytearray, begun: bool) -> bool:
    if not begun:
        if not pending.startswith(_HEADER):
            raise ConflictError("the ledger did not answer with a binary COPY")
        del pending[: len(_HEADER)]
    return True


def _rows(data: bytes, row: np.dtype[Any]) -> CopiedRows:
    rows = np.frombuffer(data, row)
    bigints, dimension = rows["integers"].shape[1], rows["halves"].shape[1]
    sound = (
        (rows["fields"] == bigints + 1).all()
        and (rows["integers"]["size"] == 8).all()
        and (rows["dimension"] == dimension).all()
    )
    if not sound:
        raise _mismatch(dimension)
    return rows["integers"]["value"].astype(np.int64), rows["halves"].astype(np.float16)


def _mismatch(dimension: int) -> ConflictError:
    return ConflictError(f"the ledger sent vectors of other than {dimension} dimensions, or none")
