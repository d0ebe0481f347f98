"""Creating, changing and reading collections."""

from typing import Any

import pytest

from ledger_world import finding, image, space, turned
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule
from pixsift.errors import ConflictError, NotFoundError, PixsiftError, RequestError
from pixsift.operations.collections import (
    Threshold,
    change,
    create,
    ensure_default,
    list_collections,
    settings,
    show,
    threshold,
)
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.status import current_outcomes, outcome_counts

STUB = ModelChoice("stub")
PATTERN = r"(?P<robot>[^/]+)/.*"
CHOSEN = Threshold(space(), 0.05, None, None, None)


def make(database: Database, name: str, **options: Any) -> None:
    create(database, name, CHOSEN, sources=[SourceRule("raw")], **options)


def test_create__what_was_asked_is_what_is_stored(database: Database) -> None:
    make(database, "mine", key_pattern=PATTERN, expiry_policy="redecide")
    found = settings(database, "mine")
    assert (found.key_pattern, found.expiry_policy) == (PATTERN, "redecide")
    assert (found.epsilon, found.generation, found.seq) == (0.05, 1, 0)
    assert found.space.space_id == space().space_id
    assert [g.state for g in found.generations] == ["current"]


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("taken", {}, ConflictError),
        ("Upper Case", {}, RequestError),
        ("fresh", {"key_pattern": "no group"}, RequestError),
    ],
)
def test_create__mistakes_by_what_the_caller_can_do(
    database: Database, name: str, options: dict[str, Any], kind: type[PixsiftError]
) -> None:
    make(database, "taken")
    with pytest.raises(kind):
        make(database, name, **options)
    assert [line.name for line in list_collections(database)] == ["taken"]


def test_change__what_is_not_named_stays_and_empty_means_no_pattern(database: Database) -> None:
    make(database, "c", key_pattern=PATTERN)
    assert change(database, "c", expiry_policy="redecide").key_pattern == PATTERN
    changed = change(database, "c", key_pattern="")
    assert (changed.key_pattern, changed.expiry_policy) == (None, "redecide")


def test_show_and_list__count_what_holds_now(database: Database, ledger: Ledger) -> None:
    batch = [image("a", turned(0)), image("b", turned(1)), finding("c", "rejected", "blurred")]
    ledger.commit(ledger.collection("c"), batch)
    counts = {"kept": 1, "duplicate": 1, "rejected": 1, "gone": 0, "failed": 0}
    assert show(database, "c").counts.outcomes == counts
    [line] = list_collections(database)
    assert line.model_dump() | counts == line.model_dump()
    by_reason = {(row.outcome, row.reason): row.objects for row in outcome_counts(database, "c")}
    assert by_reason == {("kept", "new"): 1, ("duplicate", "near"): 1, ("rejected", "blurred"): 1}
    assert [(row.key, row.outcome) for row in current_outcomes(database, "c")] == [
        ("a", "kept"), ("b", "duplicate"), ("c", "rejected"),
    ]  # fmt: skip


def test_threshold__an_epsilon_of_ones_own_has_no_calibration_that_vouches() -> None:
    chosen = threshold(STUB, epsilon=0.3, second_look="off")
    assert (chosen.epsilon, chosen.second_look, chosen.calibration) == (0.3, None, None)
    with pytest.raises(RequestError) as error:
        threshold(STUB, epsilon=3.0)
    assert error.value.code == "epsilon_range"


def test_ensure_default__is_made_once(database: Database) -> None:
    first = ensure_default(database, "raw", STUB)
    assert ensure_default(database, "other", STUB).collection_id == first.collection_id


def test_chosen__one_by_its_name_or_all(database: Database) -> None:
    make(database, "a")
    make(database, "b")
    registry = Collections(database)
    assert [found.name for found in registry.chosen(None)] == ["a", "b"]
    assert [found.name for found in registry.chosen("b")] == ["b"]
    with pytest.raises(NotFoundError) as error:
        registry.chosen("absent")
    assert error.value.code == "unknown_collection"
