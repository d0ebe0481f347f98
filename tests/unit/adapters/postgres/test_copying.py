import struct

import numpy as np
import pytest
from pgvector import HalfVector

from pixsift.adapters.postgres import copying, halfvec
from pixsift.adapters.postgres.database import Database
from pixsift.errors import ConflictError

VECTORS = np.random.default_rng(1).standard_normal((500, 24)).astype(np.float16)
TEXTS = [HalfVector(vector).to_text() for vector in VECTORS]
"""COPY takes no binary parameters."""
COPY = (
    "COPY (SELECT n::bigint, -n::bigint, v FROM unnest(%(numbers)s::int[], %(vectors)s::halfvec[])"
    " AS t (n, v)) TO STDOUT (FORMAT binary)"
)


@pytest.mark.parametrize("block", [1, 100, 997, 1 << 20])
def test_copy_vectors__returns_what_was_stored(
    database_url: str, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(copying, "_BLOCK_BYTES", block)
    names = {"numbers": list(range(500)), "vectors": TEXTS}
    with Database(database_url) as database, database.connection() as connection:
        blocks = list(copying.copy_vectors(connection, COPY, names, bigints=2, dimension=24))
    integers = np.concatenate([part for part, _ in blocks])
    assert integers[:, 0].tolist() == list(range(500))
    assert integers[:, 1].tolist() == [-n for n in range(500)]
    assert np.array_equal(np.concatenate([halves for _, halves in blocks]), VECTORS)
    assert block > 1000 or len(blocks) > 10


def test_copy_vectors__of_nothing(database_url: str) -> None:
    with Database(database_url) as database, database.connection() as connection:
        names: dict[str, list[int]] = {"numbers": [], "vectors": []}
        assert list(copying.copy_vectors(connection, COPY, names, bigints=2, dimension=24)) == []


@pytest.mark.parametrize("wrong", [{"dimension": 23}, {"dimension": 48}, {"bigints": 1}])
def test_copy_vectors__of_another_shape_are_refused(
    database_url: str, wrong: dict[str, int]
) -> None:
    names = {"numbers": [1, 2], "vectors": TEXTS[:2]}
    shape = {"bigints": 2, "dimension": 24} | wrong
    with (
        Database(database_url) as database,
        database.connection() as connection,
        pytest.raises(ConflictError, match="dimensions"),
    ):
        list(copying.copy_vectors(connection, COPY, names, **shape))


def test_read_vectors__refuses_other_and_cut_off_data() -> None:
    with pytest.raises(ConflictError, match="binary COPY"):
        list(copying.read_vectors([b"1\t[1,2]\n"], bigints=1, dimension=2))
    with pytest.raises(ConflictError, match="dimensions"):
        list(copying.read_vectors([copying._HEADER + struct.pack(">h", 2)], bigints=1, dimension=2))


def test_halfvec__has_the_bytes_of_pgvector() -> None:
    for vector in VECTORS[:50]:
        assert halfvec.pack(vector) == HalfVector(vector).to_binary()
        assert np.array_equal(halfvec.unpack(HalfVector(vector).to_binary()), vector)


def test_halfvec__the_types_of_pgvector_work_too(database_url: str) -> None:
    with Database(database_url) as database, database.connection() as connection:
        asked = connection.execute("SELECT %s::halfvec", (HalfVector(VECTORS[0]),)).fetchone()
    assert asked is not None and asked[0] == HalfVector(VECTORS[0])
