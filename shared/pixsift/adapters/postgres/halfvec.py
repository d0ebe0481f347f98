"""halfvec on our connections: pgvector's own psycopg types, and a faster path for float16 arrays.

``pgvector.HalfVector`` is registered as the library does it. Arrays have a faster path, since every
decision reads vectors under its lock: for 384 dimensions an array is written in 6 microseconds
instead of 27, and read in 1.3 instead of 21 (pgvector 0.5, one core of a busy machine, best of 7;
``HalfVector`` holds an ``array`` and copies twice). A test compares the bytes.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pgvector.psycopg.halfvec import register_halfvec_info
from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo


def register(connection: Connection[Any]) -> None:
    """Make the connection take float16 arrays (D,) as halfvec, and return them from binary cursors.

    The database must have the type.
    """
    info = TypeInfo.fetch(connection, "halfvec")
    assert info is not None  # noqa: S101 - looked for when the pool was opened
    register_halfvec_info(connection, info)
    dumper = cast(type[Dumper], type("ArrayDumper", (_ArrayDumper,), {"oid": info.oid}))
    connection.adapters.register_dumper(np.ndarray, dumper)
    connection.adapters.register_loader(info.oid, _ArrayLoader)


def pack(halves: NDArray[np.float16]) -> bytes:
    """Binary halfvec of (D,) float16: its dimension, an unused int16, big-endian halves."""
    return len(halves).to_bytes(2, "big") + b"\0\0" + halves.astype(">f2").tobytes()


def unpack(data: Buffer) -> NDArray[np.float16]:
    """(D,) float16 of a binary halfvec."""
    return np.frombuffer(data, ">f2", offset=4).astype(np.float16)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: NDArray[np.float16]) -> Buffer:
        return pack(obj)


class _ArrayLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> NDArray[np.float16]:
        return unpack(data)
