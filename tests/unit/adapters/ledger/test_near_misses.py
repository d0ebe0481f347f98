"""Of a kept image the nearest kept one within epsilon is stored, and explained."""

import numpy as np
import pytest

from ledger_world import image, ledger_of, new_collection, rows, turned
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import S3Uri
from pixsift.core.outcomes import Judged
from pixsift.core.second_look import LookRule, look_signals
from pixsift.operations.explain import explain


def looks(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return look_signals(np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1))


def stored(url: str) -> dict[str, tuple[str, float]]:
    return {
        key: (of, distance)
        for key, of, distance in rows(
            url,
            "SELECT o.key, n.key, (d.detail -> 'nearest' ->> 'distance')::float8"
            " FROM decision d JOIN collection c USING (collection_id, generation)"
            " JOIN object o USING (object_id)"
            " JOIN object n ON n.object_id = (d.detail -> 'nearest' ->> 'object_id')::bigint"
            " WHERE d.valid_to_seq IS NULL",
        )
    }


@pytest.mark.parametrize("together", [False, True])
def test_near_miss__is_stored_with_a_kept_image(together: bool, database_url: str) -> None:
    """Every pair looks different, so all are kept, however near their embeddings."""
    arrivals: list[Judged] = [
        image(key, turned(angle), look=looks(seed))
        for seed, (key, angle) in enumerate({"a": 0, "b": 10, "c": 13, "far": 90, "e": 94}.items())
    ]
    with ledger_of(database_url) as ledger:
        collection = new_collection(ledger, second_look=LookRule(narrow=0.001).to_json())
        for batch in [arrivals] if together else [[arrival] for arrival in arrivals]:
            decided = ledger.commit(collection, batch)
            assert {d.outcome for d in decided} == {"kept"}
    told = stored(database_url)
    assert {key: of for key, (of, _) in told.items()} == {"b": "a", "c": "b", "e": "far"}
    for key, degrees in (("b", 10), ("c", 3), ("e", 4)):
        assert told[key][1] == pytest.approx(1 - np.cos(np.radians(degrees)), abs=2e-4)
    with Database(database_url) as database:
        (story,) = explain(database, S3Uri("raw", "c"))
        missed = story.collections[0].near_miss
        assert missed is not None and missed.uri.startswith("s3://raw/b?")
        assert missed.recomputed_distance == missed.stored_distance
        assert missed.second_look is not None and not missed.second_look["agrees"]
        (story,) = explain(database, S3Uri("raw", "far"))
        assert story.collections[0].near_miss is None
        Generations(database).redecide(collection, epsilon=0.05)
        assert stored(database_url) == told
        everybody = [i for (i,) in rows(database_url, "SELECT object_id FROM object")]
        assert Rejudge(database).again(collection, everybody, why="test") == []
