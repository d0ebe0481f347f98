"""``pixsift select --dry-run``: figures, picture and refusals, from a real ledger."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from pixsift_cli.choosing.options import selection_changes
from pools import LedgerOfRows, unit_rows

Run = Callable[..., tuple[int, str, str]]
EVIL = '<script>alert(1)</script>[bold]"'


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, run_pixsift: Run) -> Run:
    """Runs the command as a user would: exit status, standard output, standard error."""
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)

    return run_pixsift


@pytest.fixture
def ledger(database_url: str) -> LedgerOfRows:
    """A collection ``shop`` of 120 images of three robots, one with a name that bites."""
    ledger = LedgerOfRows(database_url, 8)
    for robot in ("r1", "r2", EVIL):
        ledger.keep(
            unit_rows(40, 8, seed=len(robot), centers=4), prefix=f"{robot[:2]}/",
            attributes=[{"robot": robot, "recording": f"{robot}-{i // 8}"} for i in range(40)],
        )  # fmt: skip
    return ledger


def test_select__shows_the_choice_beside_chance(ledger: LedgerOfRows, run: Run) -> None:
    status, out, _ = run(
        "select", "--dry-run", "--collection", "shop", "--k", "12", "--report-by", "robot"
    )
    assert status == 0
    assert re.search(r"12 of 1\d\d candidates by typical, seed 0, collection shop at seq 120", out)
    assert "12 of 120 images (10 %) is at most 10%: typical images train best" in out
    for text in ("this selection", "stratified random", "covering radius", EVIL, "splits: train"):
        assert text in out


def test_select__json_and_picture(ledger: LedgerOfRows, run: Run, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({
        "request_id": "x", "collection": "shop", "name": "any",
        "select": {"strategy": "stratified", "k": 12, "quota": {"by": "robot"}},
        "split": {"train": 0.5, "val": 0.25, "test": 0.25, "group_by": ["recording"]},
    }))  # fmt: skip
    page = tmp_path / "page.html"
    status, out, _ = run(
        "select", str(request), "--k", "18", "--dry-run", "--json", "--picture", str(page)
    )
    assert status == 0
    facts = json.loads(out)
    assert len(facts["images"]) == 18 == facts["k"]
    assert facts["coverage"]["selection"]["strata"] == {EVIL: 6, "r1": 6, "r2": 6}
    assert facts["images"][0]["uri"].startswith("s3://raw/")
    assert set(facts["splits"]) == {"train", "val", "test"}
    text = page.read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<polyline") == 6
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)  # noqa: S314 - what we wrote ourselves


def test_select__explicit_quotas_from_the_command_line(ledger: LedgerOfRows, run: Run) -> None:
    status, out, err = run(
        "select", "--dry-run", "--json", "--collection", "shop", "--k", "5", "--by", "robot",
        "--share", "explicit", "--count", "r1=4", "--count", "r2=1", "--strategy", "random",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads(out)["coverage"]["selection"]["strata"] == {EVIL: 0, "r1": 4, "r2": 1}


def test_select__at_most_says_that_there_are_fewer(ledger: LedgerOfRows, run: Run) -> None:
    status, out, _ = run(
        "select", "--dry-run", "--collection", "shop", "--k", "500", "--at-most", "--prefix", "r1/"
    )
    assert status == 0
    assert re.search(
        r"all \d\d there are( but \d odd ones)?, where 500 were asked for at most", out
    )


def test_select__refuses_a_request_too_deep_to_read(run: Run, tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    status, _, err = run("select", "--dry-run", str(deep))
    assert (status, "maximum recursion depth" in err) == (2, True)


def test_selection_changes__options_become_fields() -> None:
    changes = selection_changes(
        at_most=True, by="robot", inside="random", cluster_share="sqrt",
        quality=["sharpness=0.5:", "brightness=:0.9"], count=["a=b=3"], min_distance=0.1,
        captured_after="2026-11-01", captured_before="2026-12-01T00:00:00Z",
    )  # fmt: skip
    assert changes["select"]["at_most"] is True
    assert changes["select"]["cluster_share"] == "sqrt"
    assert changes["select"]["quota"] == {
        "by": "robot", "share": None, "cap": None, "inside": "random", "counts": {"a=b": "3"},
    }  # fmt: skip
    assert changes["where"]["quality"] == {
        "sharpness": {"min": 0.5, "max": None}, "brightness": {"min": None, "max": 0.9},
    }  # fmt: skip
    assert changes["where"]["captured_before"] == "2026-12-01T00:00:00Z"
    assert changes["split"]["min_distance"] == 0.1


def test_select__refuses_a_name_of_several_snapshots(
    ledger: LedgerOfRows, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = "pixsift.adapters.ledger.snapshots.Snapshots"
    monkeypatch.setattr(f"{snapshots}.find", lambda *_: ["s3", "s2", "s1"])
    monkeypatch.setattr(
        f"{snapshots}.get",
        lambda _, name: SimpleNamespace(
            snapshot_id=name, state="failed" if name == "s3" else "published"
        ),
    )
    status, _, err = run(
        "select", "--dry-run", "--collection", "shop", "--k", "5", "--preselected", "set"
    )
    assert (status, "2 snapshots are named 'set'; use an id, e.g. s2" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--collection", "shop", "--k", "5"], "add --dry-run"),
        (["--dry-run", "--collection", "none", "--k", "5"], "no collection 'none'"),
        (["--dry-run", "--collection", "shop", "--k", "500"], "cannot choose 500 of 1"),
        (["--dry-run", "--collection", "shop"], "needs k"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--where", "site=x"],
         "unknown attribute 'site'; there are: recording, robot"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--preselected", "s9"],
         "snapshot 's9' does not exist"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--picture", "/none/page.html"],
         "--picture /none/page.html"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--prefix", "a\0b"], "contains a NUL"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--prefix", "\ud800"], "be stored"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--count", "r1"], "stratum=images"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--quality", "sharpness=:"],
         "write it as metric=min:max"),
        (["--dry-run", "--collection", "shop", "--k", "5", "--quality", "x=nan:"], "be stored"),
    ],
)  # fmt: skip
def test_select__refuses_in_one_line(
    ledger: LedgerOfRows, run: Run, arguments: list[str], message: str
) -> None:
    status, _, err = run("select", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_select__compares_strategies_on_a_page(
    ledger: LedgerOfRows, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    page = tmp_path / "compare.html"
    status, out, err = run(
        "select", "--compare", "--collection", "shop", "--label", "robot", "--hold-out",
        "recording", "--size", "12", "--size", "30", "--picture", str(page),
    )  # fmt: skip
    assert status == 0, err
    assert "linear probe" in out
    text = page.read_text("utf-8")
    assert "<script" not in text
    assert "s3://raw/" in text  # no thumbnails here: the names instead
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for drawing in drawings:
        ElementTree.fromstring(drawing)  # noqa: S314 - what we wrote ourselves
        assert "images chosen" in drawing
        assert any(unit in drawing for unit in ("cosine distance", "accuracy, %", "covered, %"))
    assert len(drawings) >= 5
    status, _, err = run("select", "--dry-run", "--collection", "shop", "--label", "robot")
    assert (status, "need --compare" in err) == (2, True)
