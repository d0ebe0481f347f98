"""Rulings as people ask for them: one, many by a rule, previewed, listed, explained, exported."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ledger_world import image, new_collection, outcomes, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import S3Uri
from pixsift.core.manifest import build_manifest, parse_manifest
from pixsift.core.manifest_rows import ManifestRow
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.explain import explain
from pixsift.operations.rule import list_rulings, rule, rule_best, undo_rulings


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Groups a (b is sharper) and c (itself the sharpest), and one alone."""
    with Database(database_url) as database:
        ledger = Ledger(database)
        collection = new_collection(ledger)
        for key, angle, sharpness in (
            ("a", 0, 0.1), ("b", 5, 0.5), ("b2", 6, 0.5), ("c", 90, 0.9), ("d", 95, 0.2),
            ("e", 96, None), ("alone", 150, 0.3),
        ):  # fmt: skip
            quality = {} if sharpness is None else {"sharpness": sharpness}
            ledger.commit(collection, [image(key, turned(angle), quality=quality)])
        yield database


def uri(key: str) -> S3Uri:
    return S3Uri("raw", key)


def kept(database: Database) -> set[str]:
    return {
        key.split("@")[0] for key, value in outcomes(database.url).items() if value[0] == "kept"
    }


def test_rule_best__shows_first_then_all_or_nothing(database: Database) -> None:
    shown = rule_best(database, "c", "most sharpness", why="legible", who="ann", dry_run=True)
    assert (shown.groups, shown.rulings, shown.dry_run) == (2, 1, True)
    assert shown.changed == {
        "duplicate -> kept": 1, "kept -> duplicate": 1, "duplicate -> duplicate": 1,
    }  # fmt: skip
    shown_uris = {change.uri.split("?")[0] for change in shown.sample}
    assert shown_uris == {"s3://raw/a", "s3://raw/b", "s3://raw/b2"}
    assert kept(database) == {"a", "c", "alone"}
    done = rule_best(database, "c", "most sharpness", why="legible", who="ann")
    assert kept(database) == {"b", "c", "alone"}
    assert done.changed == shown.changed
    again = rule_best(database, "c", "most sharpness", why="legible", who="ann", dry_run=True)
    assert again.rulings == 0
    (line,) = list_rulings(database, "c").rulings
    assert (line.kind, line.who, line.why) == ("choose", "ann", "most sharpness: legible")
    undo_rulings(database, "c", ruling_ids=[UUID(done.ruling_ids[0])])
    assert kept(database) == {"a", "c", "alone"}
    assert list_rulings(database, "c").rulings == []
    assert list_rulings(database, "c", in_force=False).rulings[0].to_seq is not None


def test_rule_best__other_rules(database: Database) -> None:
    least = rule_best(database, "c", "least sharpness", why="x", who="ann", dry_run=True)
    assert least.rulings == 1  # of c's group: d; a is the least sharp already
    for best in ("sharpest", "most beautiful", "most", ""):
        with pytest.raises(RequestError, match="unknown rule"):
            rule_best(database, "c", best, why="x", who="ann")


def test_rule__a_batch_is_undone_as_one(database: Database) -> None:
    done = rule(database, "c", "also_keep", [uri("b"), uri("d")], why="both", who="ann")
    assert kept(database) == {"a", "b", "c", "d", "alone"}
    assert done.batch is not None
    undo_rulings(database, "c", batch=UUID(done.batch))
    assert kept(database) == {"a", "c", "alone"}
    with pytest.raises(NotFoundError, match="no such ruling is in force"):
        undo_rulings(database, "c", batch=UUID(done.batch))


def test_rule__refuses(database: Database) -> None:
    cases = [
        ("nice", ["a"], None, "unknown kind of ruling 'nice'"),
        ("same", ["a"], None, "needs another image"),
        ("useless", ["a"], "b", "is about one image"),
    ]
    for kind, keys, other, why in cases:
        with pytest.raises(RequestError, match=why):
            rule(
                database, "c", kind, [uri(key) for key in keys],
                other=None if other is None else uri(other), why="x", who="ann",
            )  # fmt: skip
    with pytest.raises(RequestError, match="needs a reason"):
        rule(database, "c", "useless", [uri("a")], why=" ", who="ann")
    with pytest.raises(NotFoundError, match="knows no object"):
        rule(database, "c", "useless", [uri("nobody")], why="x", who="ann")


def test_explain__tells_who_said_what(database: Database) -> None:
    rule(database, "c", "not_same", [uri("b")], other=uri("a"), why="the lamp", who="ann")
    (story,) = explain(database, uri("a"))
    (line,) = story.collections[0].rulings
    assert (line.kind, line.who, line.why) == ("not_same", "ann", "the lamp")
    assert line.other is not None and line.other.startswith("s3://raw/a")


def test_manifest__has_the_rulings() -> None:
    said = [{"id": "1", "kind": "choose", "who": "ann", "why": "x", "said_at": "2026-01-01"}]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    version = image("a", turned(0)).version
    plain = ManifestRow(
        0, "train", "data/train/a", version, "", 1, "", "", "png", 1, 1, captured_at=moment
    )
    ruled = ManifestRow(
        1, "train", "data/train/b", version, "", 1, "", "", "png", 1, 1, rulings=said
    )
    for rows in ([plain], [plain, ruled]):
        assert [list(row.rulings) for row in parse_manifest(build_manifest(rows))] == [
            list(row.rulings) for row in rows
        ]
