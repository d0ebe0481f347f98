"""Another epsilon for a collection: ask, switch, go back."""

import pytest

from ledger_world import image, outcomes, rows, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.errors import ConflictError, NotFoundError, RequestError
from pixsift.operations.redecide import Wanted, redecide, undo, warning, what_if


def silent(what: str, done: int, of: int) -> None:
    """No progress."""


@pytest.fixture
def pair(ledger: Ledger) -> Ledger:
    """Two kept images, 25 degrees (a distance of 0.094) from each other."""
    ledger.commit(ledger.collection("c"), [image("a.jpg", turned(0)), image("b.jpg", turned(25))])
    return ledger


def test_what_if__says_what_would_change_and_changes_nothing(
    database: Database, database_url: str, pair: Ledger
) -> None:
    before = outcomes(database_url)
    found = what_if(database, "c", Wanted(epsilon=0.2, second_look=False), examples=5)
    assert (found.kept, found.kept_now) == (1, 2)
    assert outcomes(database_url) == before


def test_redecide_and_undo__there_and_back(
    database: Database, database_url: str, pair: Ledger
) -> None:
    before = outcomes(database_url)
    redecide(database, "c", Wanted(epsilon=0.2, second_look=False), take_over=False,
             progress=silent, actor="someone")  # fmt: skip
    assert outcomes(database_url)["b.jpg@v1"] == ("duplicate", "near", "a.jpg")
    undo(database, "c", take_over=False, progress=silent, actor="someone")
    assert outcomes(database_url) == before
    assert rows(database_url, "SELECT DISTINCT actor FROM turn WHERE seq > 1") == [("someone",)]


def test_undo__without_an_earlier_generation_is_a_conflict(
    database: Database, pair: Ledger
) -> None:
    with pytest.raises(ConflictError):
        undo(database, "c", take_over=False, progress=silent)


@pytest.mark.parametrize("epsilon", [-0.1, 2.1, float("nan")])
def test_epsilon__must_be_a_cosine_distance(
    database: Database, ledger: Ledger, epsilon: float
) -> None:
    with pytest.raises(RequestError) as error:
        warning(database, "c", Wanted(epsilon=epsilon))
    assert error.value.code == "epsilon_range"


def test_unknown_collection__is_not_found(database: Database, ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="there are: c"):
        what_if(database, "absent", Wanted(epsilon=0.1, second_look=False), examples=0)
