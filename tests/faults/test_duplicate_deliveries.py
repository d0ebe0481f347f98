"""Promise 1: whatever is delivered again, in whatever order, by whomever, changes nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from invariants import violations
from ledger_world import finding, image, ledger_of, new_collection, outcomes, rows, unit
from pixsift.core.outcomes import Judged

VERSIONS, DELIVERIES, BATCH = 500, 20, 50


def versions() -> list[Judged]:
    """Kept, near and exact duplicates, rejected and gone ones."""
    chance = np.random.default_rng(5)
    centers = chance.standard_normal((60, 16))
    found: list[Judged] = []
    for number in range(VERSIONS):
        kind = number % 10
        key = f"{number:04}"
        if kind == 8:
            found.append(finding(key, "rejected", "blurred"))
        elif kind == 9:
            found.append(finding(key, "gone", "deleted"))
        else:
            noise = chance.standard_normal(16) * 0.1
            vector = unit(*(centers[chance.integers(60)] + noise))
            found.append(image(key, vector, content=f"c{number // 4}" if kind < 3 else None))
    # Equal bytes have equal pixels and so one vector.
    first: dict[bytes | None, Judged] = {}
    for i, item in enumerate(found):
        if item.finding == "embedded":
            same = first.setdefault(item.content_sha256, item)
            found[i] = Judged(
                item.version, "embedded", content_sha256=same.content_sha256,
                pixel_sha256=same.pixel_sha256, embedding=same.embedding,
            )  # fmt: skip
    return found


def test_ten_thousand_deliveries__one_outcome_each(database_url: str) -> None:
    items = versions()
    order = np.random.default_rng(6).permutation(np.tile(np.arange(VERSIONS), DELIVERIES))
    batches = [[items[i] for i in part] for part in np.split(order, len(order) // BATCH)]
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda batch: ledger.commit(collection, batch), batches))
        told = {d.version: (d.outcome, d.representative_object_id) for a in answers for d in a}
        assert all(
            told[d.version] == (d.outcome, d.representative_object_id) for a in answers for d in a
        ), "two deliveries of one version were told different outcomes"
        assert sum(d.is_new for a in answers for d in a) == VERSIONS
    assert len(outcomes(database_url)) == VERSIONS
    assert rows(database_url, "SELECT count(*) FROM decision") == [(VERSIONS,)]
    assert violations(database_url) == []
