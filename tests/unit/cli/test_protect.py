"""``pixsift protect``: declared, listed and withdrawn as a user does it."""

import json
from collections.abc import Callable

import pytest

from ledger_world import image, ledger_of, new_collection, turned

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, run_pixsift: Run) -> Run:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger)
        ledger.commit(collection, [image(f"{n}", turned(40 * n)) for n in range(4)])
    return run_pixsift


def test_protect__from_declaring_to_withdrawing(run: Run) -> None:
    status, out, err = run("protect", "add", "s3://raw/0", "--why", "test", "--distance", "0.3")
    assert status == 0, err
    assert "1 pictures, nothing is chosen within 0.3" in out
    _, out, _ = run("select", "--dry-run", "--strategy", "all")
    assert "protected: 2 images near an evaluation set left out" in out
    _, out, _ = run("select", "--dry-run", "--strategy", "all", "--protected", "include")
    assert "4 of 4 candidates" in out
    (told,) = json.loads(run("protect", "list", "--json")[1])["sets"]
    assert (told["kind"], told["source"], told["why"]) == ("prefix", "s3://raw/0", "test")
    status, out, _ = run("protect", "remove", told["protected_id"])
    assert (status, out) == (0, "collection c protects nothing\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "none", "--why", "x"], "snapshot 'none' does not exist"),
        (["add", "s3://raw/0", "--why", ""], "needs a reason"),
        (["remove", "5"], "pixsift protect list"),
        (["remove", "5c9a0f1e-0000-4000-8000-000000000000"], "no evaluation set"),
    ],
)
def test_protect__mistakes_have_a_remedy(run: Run, arguments: list[str], message: str) -> None:
    status, _, err = run("protect", *arguments)
    assert status == 2
    assert message in err
