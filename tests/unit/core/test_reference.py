"""The scan against the definition, and regions against a plain count."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.reference import ReferenceScan, Regions
from pixsift.core.retrieval import unit


@given(st.integers(0, 9999), st.integers(1, 9), st.integers(0, 60), st.floats(0.01, 1.9))
def test_scan__is_the_definition(seed: int, references: int, images: int, limit: float) -> None:
    chance = np.random.default_rng(seed)
    them = unit(chance.standard_normal((references, 6))).astype(np.float16).astype(np.float64)
    rows = unit(chance.standard_normal((images, 6))).astype(np.float16)
    ids = chance.permutation(1000)[:images].astype(np.int64)
    scan = ReferenceScan(them, limit=limit)
    for start in range(0, images, 17):
        scan.add(ids[start : start + 17], rows[start : start + 17])
    found = scan.result()
    assert found.object_ids.tolist() == ids.tolist()
    if not images:
        assert np.isinf(found.nearest).all() and (found.nearest_ids == -1).all()
        return
    exact = np.maximum(0, 1 - unit(rows.astype(np.float64)) @ unit(them).T)
    assert np.allclose(found.nearest, exact.min(axis=0), atol=1e-12)
    assert np.allclose(found.distances, exact.min(axis=1), atol=2e-6)
    assert ((found.distances > limit) == (exact.min(axis=1) > limit)).all()
    place = {int(i): n for n, i in enumerate(ids)}
    for column, nearest in zip(exact.T, found.nearest_ids, strict=True):
        assert np.isclose(column[place[int(nearest)]], column.min(), atol=2e-6)


def test_regions__count_everything_and_keep_the_nearest() -> None:
    chance = np.random.default_rng(2)
    centroids = np.eye(4)
    rows = unit(chance.standard_normal((500, 4))).astype(np.float16)
    regions = Regions(centroids)
    for start in range(0, 500, 64):
        ids = np.arange(start, min(start + 64, 500))
        regions.add(ids, rows[start : start + 64], keep=3)
    products = unit(rows.astype(np.float64))
    labels = products.argmax(axis=1)
    assert regions.counts.tolist() == np.bincount(labels, minlength=4).tolist()
    for label in regions.order().tolist():
        mine = np.flatnonzero(labels == label)
        best = mine[np.argsort(-products[mine, label])[:3]]
        assert regions.examples(label) == best.tolist()
    counts = regions.counts[regions.order()]
    assert (np.diff(counts) <= 0).all()
