"""``pixsift attributes`` on a real ledger: versioned by seq, repeatable, all or nothing."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg
import pytest

from pixsift.adapters.ledger.pool import load_pool
from pixsift.adapters.postgres.database import Database
from pixsift.messages import Where
from pools import LedgerOfRows, unit_rows

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, run_pixsift: Run) -> Run:
    """Runs the command as a user would: exit status, standard output, standard error."""
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)

    return partial(run_pixsift, "attributes")


@pytest.fixture
def ledger(database_url: str) -> LedgerOfRows:
    """Five images with a key attribute each; seq is 5."""
    ledger = LedgerOfRows(database_url, 4)
    ledger.keep(unit_rows(5, 4), attributes=[{"label": "from-key"}] * 5)
    return ledger


def labels(
    ledger: LedgerOfRows, folder: Path, at_seq: int, name: str = "label"
) -> list[str | None]:
    """An attribute of the five images, at a point."""
    with Database(ledger.database_url) as database:
        pool = load_pool(database, ledger.collection_id, 1, at_seq, Where(), spill_dir=folder)
    return [pool.facts.attributes[name].at(i) for i in range(pool.object_ids.size)]


def test_import__is_versioned_and_repeatable(
    ledger: LedgerOfRows, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("key,label,site\nr1/000001.jpg,cat,north\nr1/000003.jpg,dog,\n")
    status, out, _ = run("import", str(file), "--collection", "shop")
    assert (status, out) == (0, "2 rows for 2 objects: 2 changed, collection shop is at seq 6\n")
    again = run("import", str(file), "--collection", "shop")[1]
    assert again.endswith("0 changed, collection shop is at seq 6\n")
    file.write_text("uri,label\ns3://raw/r1/000001.jpg?versionId=v1,lion\n")
    assert json.loads(run("import", str(file), "--collection", "shop", "--json")[1]) == {
        "rows": 1, "objects": 1, "changed": 1, "unknown": 0, "seq": 7,
    }  # fmt: skip
    key = "from-key"
    assert labels(ledger, tmp_path, 5) == [key] * 5
    assert labels(ledger, tmp_path, 6) == ["cat", key, "dog", key, key]
    assert labels(ledger, tmp_path, 7) == ["lion", key, "dog", key, key]
    assert labels(ledger, tmp_path, 7, "site")[0] == "north"  # the second file did not mention it
    out = run("list", "--collection", "shop")[1]
    assert "label" in out
    assert "sidecar" in out


def test_import__null_and_replace_take_away(ledger: LedgerOfRows, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    for text, *more in (
        [{"r1/000001.jpg": {"label": "cat", "site": "north"}}],
        [{"r1/000001.jpg": {"label": None}}],
        [{"r1/000001.jpg": {"label": "tiger"}}, "--replace"],
    ):
        file.write_text(json.dumps(text))
        assert run("import", str(file), "--collection", "shop", *more)[0] == 0
    assert [labels(ledger, tmp_path, seq)[0] for seq in (6, 7, 8)] == ["cat", None, "tiger"]
    assert labels(ledger, tmp_path, 7)[1] == "from-key"
    assert labels(ledger, tmp_path, 7, "site")[0] == "north"
    with psycopg.connect(ledger.database_url) as connection:
        rows = connection.execute(
            "SELECT attributes FROM attribute WHERE source = 'sidecar' AND valid_to_seq IS NULL"
        ).fetchall()
    assert rows == [({"label": "tiger"},)]


def test_import__refuses_unknown_objects_before_anything_is_written(
    ledger: LedgerOfRows, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("key,label\nr1/000001.jpg,cat\nr1/absent.jpg,dog\n")
    status, _, err = run("import", str(file), "--collection", "shop")
    assert status == 2
    assert err == (
        "pixsift: 1 of 2 rows name no object of collection 'shop', e.g. line 3: 'r1/absent.jpg': "
        "--skip-unknown leaves them out\n"
    )
    assert labels(ledger, tmp_path, 5) == ["from-key"] * 5
    out = run("import", str(file), "--collection", "shop", "--skip-unknown")[1]
    assert out.endswith("at seq 6, 1 rows skipped\n")


@pytest.mark.parametrize(
    "case",
    [
        ("a.txt", "key,label\n", "its name must end in .csv"),
        ("a.csv", "key,label\nr1/000001.jpg\n", "line 2 has 1 cells"),
        (
            "a.csv",
            "key,bucket,label\nr1/000001.jpg,,cat\nr1/000001.jpg,raw,dog\n",
            "line 2 and line 3 give different values for object 'r1/000001.jpg'",
        ),
    ],
)
def test_import__refuses_unclear_files(
    ledger: LedgerOfRows, run: Run, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    name, text, message = case
    file = tmp_path / name
    file.write_text(text)
    status, _, err = run("import", str(file), "--collection", "shop")
    assert status == 2
    assert message in err
    assert run("import", str(tmp_path / "no.csv"), "--collection", "shop")[0] == 2
