"""Pools from a real PostgreSQL: what is in them, at which point, and what is refused."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
import pytest

from ledger_world import DIMENSION, image, ledger_of, new_collection, rows, turned
from pixsift.adapters.ledger.pool import (
    _facts,
    _Scope,
    count_pool,
    load_pool,
    object_uris,
    pool_point,
)
from pixsift.adapters.postgres.database import Database
from pixsift.core.choosing.pool import Pool, Times
from pixsift.core.choosing.sampling import select
from pixsift.errors import UserError
from pixsift.messages import Range, Select, Where, Where2
from pixsift.ports import EmbeddingSpace
from pools import LedgerOfRows, unit_rows


def load(ledger: LedgerOfRows, folder: Path, where: Where | None = None, **more: object) -> Pool:
    at_seq = more.pop("at_seq", ledger.seq)
    with Database(ledger.database_url) as database:
        return load_pool(
        database, ledger.collection_id, 1, at_seq, where or Where(),  # type: ignore[arg-type]
        spill_dir=folder, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_load_pool__rows_are_the_stored_halves(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 24)
    stored = unit_rows(50, 24)
    ledger.keep(stored)
    pool = load(ledger, tmp_path)
    assert pool.object_ids.tolist() == ledger.object_ids
    assert np.array_equal(pool.rows.take(np.arange(50)), stored.astype(np.float64))
    assert list(tmp_path.iterdir()) == []  # the spill file has no name
    chosen = select(pool, Select(k=5))
    held = load(ledger, tmp_path, device="cpu")
    assert type(held.rows).__name__ == "TorchRows"
    assert select(held, Select(k=5)).object_ids.tolist() == chosen.object_ids.tolist()


def test_load_pool__is_of_one_point(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ids = ledger.keep(unit_rows(6, 4))
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE representative SET valid_to_seq = 5 WHERE object_id = %s", (ids[1],)
        )
    assert load(ledger, tmp_path, at_seq=4).object_ids.tolist() == ids[:4]
    assert load(ledger, tmp_path, at_seq=5).object_ids.tolist() == [ids[0], *ids[2:5]]
    with pytest.raises(UserError, match="is in the future"):
        load(ledger, tmp_path, at_seq=7)


def test_load_pool__filters(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    a = ledger.keep(
        unit_rows(3, 4), prefix="r1/",
        attributes=[{"robot": "r1", "shift": "day"}] * 2 + [{"robot": "r1"}],
        quality=[{"sharpness": 0.1}, {"sharpness": 0.9}, {"brightness": 0.5}],
        captured_at=["2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", None],
    )  # fmt: skip
    b = ledger.keep(unit_rows(2, 4), prefix="r2/", attributes=[{"robot": "r2"}] * 2)
    cases = [
        (Where(attributes={"robot": ["r1"]}), a),
        (Where(attributes={"robot": ["r1", "r2"], "shift": ["day"]}), a[:2]),
        (Where(prefix="r2/"), b),
        (Where(quality={"sharpness": Range(min=0.5)}), a[1:2]),
        (Where(captured_after="2026-11-01T12:00:00Z"), a[1:2]),  # type: ignore[arg-type]
        (Where(captured_before="2026-11-01T12:00:00Z"), a[:1]),  # type: ignore[arg-type]
    ]
    for where, expected in cases:
        assert load(ledger, tmp_path, where).object_ids.tolist() == expected, where


def test_load_pool__flags(database_url: str, tmp_path: Path) -> None:
    """Flagged images stay out from version 2 on unless asked for; how a file was written does not
    count as a flag of the picture."""
    flags = [["blurred"], ["stray_bytes"], [], ["dark", "blurred"]]
    with ledger_of(database_url) as ledger:
        ledger.commit(
            new_collection(ledger),
            [image(f"{i}", turned(40 * i), detail={"flags": f}) for i, f in enumerate(flags)],
        )
    cases = [
        (Where(), [0, 1, 2, 3], None),
        (Where2(), [1, 2], 2),
        (Where2(flagged="include"), [0, 1, 2, 3], None),
        (Where2(flagged="only"), [0, 3], None),
        (Where2(flags=["dark"]), [3], None),
        (Where2(flags=["stray_bytes", "dark"]), [1, 3], None),
        (Where2(flags=["blurred"], flagged="only"), [0, 3], None),
    ]
    with Database(database_url) as database:
        at = pool_point(database, "c", None)

        def asked(where: Where) -> Pool:
            return load_pool(
                database, at.collection_id, at.generation, at.at_seq, where, spill_dir=tmp_path
            )

        everybody = asked(Where()).object_ids
        for where, expected, left_out in cases:
            pool = asked(where)
            assert pool.object_ids.tolist() == everybody[expected].tolist(), where
            assert pool.left_out_flagged == left_out
            assert pool.flagged is not None
            assert pool.flagged.tolist() == [i in (0, 3) for i in expected]
            assert count_pool(database, at, where) == len(expected)
        with pytest.raises(UserError, match="unknown flag 'blury': flags are names of quality"):
            asked(Where2(flags=["blury"]))
        with pytest.raises(UserError, match="1 are left out because a quality check flagged"):
            asked(Where2(prefix="0"))


def test_load_pool__labels_of_duplicates(database_url: str, tmp_path: Path) -> None:
    """F8 of the field tests: two of three defects are byte copies of pictures kept as ok."""
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger, key_pattern=r"(?P<label>ok|defect)/(?P<robot>r\d)/.*")
        arrivals = [
            image("ok/r1/a", turned(0)), image("ok/r1/b", turned(40)), image("ok/r2/c", turned(80)),
            image("defect/r1/a", turned(0), content="ok/r1/a@v1"),
            image("defect/r2/b", turned(41)), image("defect/r2/d", turned(120)),
        ]  # fmt: skip
        for arrival in arrivals:
            ledger.commit(collection, [arrival])
    a, b, c, d = (row[0] for row in rows(
        database_url, "SELECT object_id FROM object WHERE key IN"
        " ('ok/r1/a', 'ok/r1/b', 'ok/r2/c', 'defect/r2/d') ORDER BY object_id",
    ))  # fmt: skip
    cases = [
        (Where2(attributes={"label": ["defect"]}), [a, b, d], 2),
        (Where2(attributes={"label": ["defect"], "robot": ["r2"]}), [b, d], 1),
        (Where2(attributes={"label": ["defect"]}, prefix="defect/r1/"), [a], 1),
        (Where2(prefix="defect/"), [a, b, d], 2),
        (Where2(attributes={"label": ["ok"]}), [a, b, c], 0),
        (Where2(attributes={"label": ["defect"]}, labels_of_duplicates=False), [d], None),
        (Where(attributes={"label": ["defect"]}), [d], None),
        (Where(prefix="defect/"), [d], None),
    ]
    with Database(database_url) as database:
        at = pool_point(database, "c", None)
        for where, expected, through in cases:
            pool = load_pool(
                database, at.collection_id, at.generation, at.at_seq, where, spill_dir=tmp_path
            )
            assert pool.object_ids.tolist() == expected, where
            assert pool.by_duplicates == through, where
            assert count_pool(database, at, where) == len(expected)
            asked = isinstance(where, Where2) and where.labels_of_duplicates
            found = [(x.object_id, x.attribute, x.values) for x in pool.conflicts]
            if asked and set(where.attributes) == {"label"}:
                values = ("defect", "ok")
                assert found == [(a, "label", values), (b, "label", values)]
                assert select(pool, Select(k=1)).report["label_conflicts"] == 2
        earlier = load_pool(
            database, at.collection_id, at.generation, 3, Where2(attributes={"label": ["ok"]}),
            spill_dir=tmp_path,
        )  # fmt: skip
        assert earlier.object_ids.tolist() == [a, b, c]


def test_load_pool__sidecar_overrides_key(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ids = ledger.keep(unit_rows(2, 4), attributes=[{"label": "a", "robot": "r"}] * 2)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO attribute VALUES (%s, %s, 'sidecar', '{\"label\": \"b\"}', 2)",
            (ledger.collection_id, ids[0]),
        )
    pool = load(ledger, tmp_path)
    assert [pool.facts.attributes["label"].at(i) for i in (0, 1)] == ["b", "a"]
    assert [pool.facts.attributes["robot"].at(i) for i in (0, 1)] == ["r", "r"]


def test_load_pool__refuses(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ledger.keep(unit_rows(3, 4), attributes=[{"robot": "r1"}] * 3, quality=[{"sharpness": 1}] * 3)
    with pytest.raises(UserError, match="unknown attribute 'site'; there are: robot"):
        load(ledger, tmp_path, Where(attributes={"site": ["x"]}))
    with pytest.raises(UserError, match="unknown quality metric 'blur'; there are: sharpness"):
        load(ledger, tmp_path, Where(quality={"blur": Range(min=0)}))
    with pytest.raises(UserError, match="no image matches the filter: 3 are kept"):
        load(ledger, tmp_path, Where(attributes={"robot": ["r9"]}))
    with pytest.raises(UserError, match="no image matches the filter: 3 are kept"):
        load(ledger, tmp_path, Where(quality={"sharpness": Range(min=1e300)}))
    with pytest.raises(UserError, match="does not know s3://raw/absent"):
        load(ledger, tmp_path, request=Select(k=1, exclude=["s3://raw/absent"]))
    with pytest.raises(UserError, match="is not an S3 URI"):
        load(ledger, tmp_path, request=Select(k=1, exclude=["absent"]))


def test_load_pool__refuses_mixed_spaces(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ledger.keep(unit_rows(2, 4))
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO model VALUES ('other', 'stub', '', '', 'p', 'gap', 4)")
    ledger.keep(unit_rows(2, 4, seed=1), space_id="other")
    with pytest.raises(UserError, match=r"across embedding spaces \(other, space-1\)"):
        load(ledger, tmp_path)


def test_load_pool__anchors_need_not_be_kept(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ids = ledger.keep(unit_rows(8, 4))
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE representative SET valid_to_seq = 8 WHERE object_id = %s", (ids[2],)
        )
    pool = load(ledger, tmp_path, preselected=[ids[2], ids[3]])
    assert pool.object_ids.tolist() == ids
    assert pool.eligible.tolist() == [i != ids[2] for i in ids]
    chosen = select(pool, Select(k=6), preselected=[ids[2], ids[3]])
    assert set(chosen.object_ids) == set(ids) - {ids[2], ids[3]}


def test_load_pool__exclude_by_uri(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ids = ledger.keep(unit_rows(4, 4))
    request = Select(k=3, exclude=["s3://raw/r1/000002.jpg?versionId=v1"])
    chosen = select(load(ledger, tmp_path, request=request), request)
    assert set(chosen.object_ids) == {ids[0], ids[2], ids[3]}


def test_load_pool__an_erased_image_is_counted(database_url: str, tmp_path: Path) -> None:
    ledger = LedgerOfRows(database_url, 4)
    ids = ledger.keep(unit_rows(3, 4))
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "DELETE FROM embedding e USING object o"
            " WHERE o.pixel_sha256 = e.pixel_sha256 AND o.object_id = %s",
            (ids[0],),
        )
    with pytest.raises(UserError, match="has no embedding"):
        load(ledger, tmp_path)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE object SET erased_at = now() WHERE object_id = %s", (ids[0],))
    pool = load(ledger, tmp_path)
    assert (pool.object_ids.tolist(), pool.erased) == (ids[1:], 1)


def test_load_pool__of_what_the_ledger_itself_wrote(database_url: str, tmp_path: Path) -> None:
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger, key_pattern=r"^(?P<robot>[^/]+)/")
        ledger.commit(collection, [image("r1/a.jpg", turned(0)), image("r2/b.jpg", turned(40)),
                                   image("r2/near-b.jpg", turned(41))])  # fmt: skip
        ledger.commit(ledger.collection("c"), [image("r1/c.jpg", turned(90))])
        point = pool_point(database, "c", None)
        pool = load_pool(
            database, point.collection_id, point.generation, point.at_seq, Where(),
            spill_dir=tmp_path,
        )  # fmt: skip
        assert [pool.facts.attributes["robot"].at(i) for i in range(3)] == ["r1", "r2", "r1"]
        assert np.array_equal(pool.rows.take(np.arange(3))[2], turned(90).astype(np.float64))
        uris = object_uris(database, pool.object_ids.tolist())
        assert next(iter(uris.values())) == "s3://raw/r1/a.jpg?versionId=v1"
        assert select(pool, Select(k=3)).report["candidates"] == 3


def test_load_pool__a_filter_by_time_tells_what_it_could_not_judge(
    database_url: str, tmp_path: Path
) -> None:
    """S3's own time stands in where nothing else tells, and never in the place of a better one."""
    early, late = (datetime(2026, 11, day, tzinfo=UTC) for day in (1, 20))
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        collection = new_collection(ledger)
        ledger.commit(collection, [
            image("old.jpg", turned(0), captured_at=early, stored_at=late),
            image("new.jpg", turned(30), captured_at=late, stored_at=late),
            image("s3.jpg", turned(60), stored_at=late),
            image("older-s3.jpg", turned(90), stored_at=early),
            image("unknown.jpg", turned(120)),
        ])  # fmt: skip
        point = pool_point(database, "c", None)

        def pool(where: Where) -> Pool:
            return load_pool(
                database, point.collection_id, point.generation, point.at_seq, where,
                spill_dir=tmp_path,
            )  # fmt: skip

        found = pool(Where(captured_after=datetime(2026, 11, 10, tzinfo=UTC)))
        assert [uri.split("?")[0] for uri in object_uris(
            database, found.object_ids.tolist()
        ).values()] == ["s3://raw/new.jpg", "s3://raw/s3.jpg"]  # fmt: skip
        assert found.times == Times(unknown=1, by_s3=1)
        report = select(found, Select(strategy="all")).report
        assert (report["without_time"], report["time_of_s3"]) == (1, 1)
        everything = pool(Where())
        assert everything.times is None
        assert "without_time" not in select(everything, Select(strategy="all")).report
        with pytest.raises(UserError, match="1 of them have no capture time"):
            pool(Where(captured_after=datetime(2027, 1, 1, tzinfo=UTC)))


def test_load_pool__of_a_second_space_by_another_recipe(database_url: str, tmp_path: Path) -> None:
    with ledger_of(database_url) as ledger, Database(database_url) as database:
        first = new_collection(ledger)
        larger = EmbeddingSpace("stub", "1", "00", "px1-518", "none", DIMENSION)
        ledger.ensure_space(larger)
        second = new_collection(ledger, "large", space_id=larger.space_id)
        for collection, recipe in ((first, "224"), (second, "518")):
            ledger.commit(
                collection,
                [image("a", turned(0), content="a", pixels="a" + recipe),
                 image("b", turned(80), content="b", pixels="b" + recipe)],
            )  # fmt: skip
        ids = [row[0] for row in rows(database_url, "SELECT object_id FROM object ORDER BY 1")]
        ledger.remove(second, [image("b", turned(80)).version], reason="deleted")
        for collection, kept in ((first, ids), (second, ids[:1])):
            point = pool_point(database, collection.name, None)
            pool = load_pool(
                database, point.collection_id, point.generation, point.at_seq, Where(),
                spill_dir=tmp_path, preselected=ids[1:],
            )  # fmt: skip
            assert pool.object_ids.tolist() == ids
            assert pool.object_ids[pool.eligible].tolist() == kept
            assert np.array_equal(pool.rows.take(np.arange(2))[1], turned(80).astype(np.float64))


def test_load_pool__may_think_longer_than_a_session_may_idle(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(connection: psycopg.Connection, scope: _Scope, where: Where) -> object:
        seen.append(connection.execute("SHOW idle_in_transaction_session_timeout").fetchone())
        return _facts(connection, scope, where)

    ledger = LedgerOfRows(database_url, 4)
    ledger.keep(unit_rows(2, 4))
    monkeypatch.setattr("pixsift.adapters.ledger.pool._facts", spy)
    load(ledger, tmp_path)
    assert seen == [("0",)]


def test_load_pool__what_expired_is_remembered_but_not_chosen(
    database_url: str, tmp_path: Path
) -> None:
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger, expiry_policy="remember")
        ledger.commit(collection, [image("a", turned(0)), image("b", turned(90))])
        ledger.remove(collection, [image("a", turned(0)).version], reason="expired")
    with Database(database_url) as database:
        sizes = [
            len(load_pool(
                database, collection.collection_id, 1, seq, Where(), spill_dir=tmp_path
            ).object_ids)
            for seq in (1, 2)
        ]  # fmt: skip
    assert sizes == [2, 1]
