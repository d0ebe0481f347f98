"""``pixsift rule``: made, listed and taken back from a terminal."""

import json
from collections.abc import Callable

import pytest

from ledger_world import image, ledger_of, new_collection, outcomes, rows, turned

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, run_pixsift: Run, curated: str) -> Run:
    """Over a ledger where b is a sharper duplicate of a, and c is alone."""
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger)
        for key, angle, sharpness in (("a", 0, 0.1), ("b", 5, 0.5), ("c", 90, 0.2)):
            ledger.commit(collection, [image(key, turned(angle), quality={"sharpness": sharpness})])
    return run_pixsift


def test_rule__is_made_listed_explained_and_taken_back(run: Run, database_url: str) -> None:
    status, out, err = run("rule", "also-keep", "s3://raw/b", "--why", "a pallet", "--who", "ann")
    assert status == 0, err
    assert out.splitlines()[:3] == [
        "1 rulings made", "  1 images duplicate -> kept",
        "    duplicate -> kept (by a ruling): s3://raw/b?versionId=v1",
    ]  # fmt: skip
    told = out.splitlines()[-1]
    assert told.startswith("To take back: pixsift rule undo ")
    status, out, _ = run("rule", "list")
    assert out.splitlines()[0].endswith("also_keep s3://raw/b?versionId=v1")
    assert "ann, " in out and ": a pallet" in out
    status, out, _ = run("explain", "s3://raw/b")
    assert "  ruling          also_keep, ann, " in out
    status, out, err = run(*told.split()[4:])
    assert (status, out.splitlines()[0]) == (0, "1 rulings taken back"), err
    assert outcomes(database_url)["b@v1"][0] == "duplicate"
    assert run("rule", "list")[1] == "no rulings\n"
    assert "taken back at seq" in run("rule", "list", "--past")[1]
    assert rows(database_url, "SELECT kind, count(*) FROM obligation GROUP BY kind") == [
        ("ruling", 2)
    ]


def test_rule_best__shows_before_it_applies(run: Run, database_url: str) -> None:
    asked = ("rule", "best", "most sharpness", "--why", "legible")
    status, out, err = run(*asked)
    assert status == 0, err
    assert out.splitlines()[0] == "1 rulings in 1 groups would be made: --apply makes them"
    assert outcomes(database_url)["a@v1"][0] == "kept"
    done = json.loads(run(*asked, "--apply", "--json")[1])
    assert done["changed"] == {"duplicate -> kept": 1, "kept -> duplicate": 1}
    assert outcomes(database_url)["b@v1"] == ("kept", "ruled", None)


def test_rule__mistakes_are_one_line(run: Run) -> None:
    for arguments, why in (
        (("useless", "s3://raw/x", "--why", "y"), "the ledger knows no object"),
        (("same", "s3://raw/a", "s3://raw/a", "--why", "y"), "compared with itself"),
        (("undo", "abc"), "is not the id of a ruling"),
        (("undo",), "name rulings by their ids, or a batch"),
        (("best", "nicest", "--why", "y"), "unknown rule 'nicest'"),
    ):
        status, _, err = run("rule", *arguments)
        assert status == 2, arguments
        assert why in err and len(err.splitlines()) == 1


def test_rule__a_journal_that_cannot_be_written_is_no_success(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said at all where the journal cannot even be read."""
    monkeypatch.setenv("PIXSIFT_JOURNAL_BUCKET", "absent")
    status, _, err = run("rule", "also-keep", "s3://raw/b", "--why", "a pallet")
    assert status != 0 and "absent" in err
    assert outcomes(database_url)["b@v1"][0] == "duplicate"
