"""Selection of real photographs by real embeddings: better than chance where it claims to be."""

from pathlib import Path

import pytest

from clothing import clothing_pool
from pixsift.core.choosing.coverage import compare
from pixsift.core.choosing.sampling import select
from pixsift.messages import Quota, Select


@pytest.mark.full
def test_select__covers_real_photographs_better_than_chance(real_images: Path) -> None:
    pool = clothing_pool(real_images / "photos" / "clothing")
    assert pool.object_ids.size > 300
    for k in (10, 20, 50, 100):
        compared = compare(pool, select(pool, Select(k=k)), by="class", seed=0)
        assert compared.selection.covering_radius < compared.random.covering_radius
        assert compared.selection.covering_radius < compared.stratified_random.covering_radius
    asked = Select(k=20, strategy="stratified", quota=Quota(by="class"))
    stratified = compare(pool, select(pool, asked), by="class", seed=0)
    assert set(stratified.selection.strata.values()) == {2}
