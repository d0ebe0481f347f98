"""Strategies side by side: what is held out is not chosen from, and a known winner wins."""

import numpy as np

from pixsift.core.choosing.contest import contest
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.probe import interval, nearest, probe
from pixsift.messages import Select2
from pools import make_pool, unit_rows


def clustered() -> Pool:
    """Twelve classes in proportions of a long tail, and recordings of ten frames."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.choice(12, 240, p=np.arange(12, 0, -1) / 78))
    centers = rng.normal(size=(12, 24))
    rows = centers[labels] + 0.7 * rng.normal(size=(240, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return make_pool(
        rows.astype(np.float16),
        {"class": [f"c{i:02d}" for i in labels], "run": [f"r{i // 10}" for i in range(240)]},
    )


def test_contest__typical_teaches_more_than_chance_where_classes_are_clusters() -> None:
    pool = clustered()
    found = contest(
        pool, Select2(k=1), label="class", ks=[12, 60], strategies=("typical", "random")
    )
    typical, chance = found.entries
    assert found.ks == (12, 60)
    assert typical.sizes[0].probe is not None
    assert chance.sizes[0].probe is not None
    assert typical.sizes[0].probe.accuracy > chance.sizes[0].probe.accuracy + 0.05
    assert typical.sizes[0].probe.low > 0
    assert chance.sizes[0].probe.above_random == 0
    assert typical.sizes[0].attributes["class"] > chance.sizes[0].attributes["class"]
    assert typical.sizes[0].mean_distance < chance.sizes[0].mean_distance
    assert found.to_json()["strategies"]["typical"]["sizes"][0]["probe"]["accuracy"] > 0.5


def test_contest__a_label_that_is_its_group_cannot_be_learned_without_it() -> None:
    groups = [f"g{i // 20}" for i in range(120)]
    pool = make_pool(unit_rows(120, 8, seed=1), {"group": groups, "label": groups})
    found = contest(
        pool, Select2(k=1), label="label", group="group", ks=[40], strategies=("random",)
    )
    skill = found.entries[0].sizes[0].neighbor
    assert skill is not None
    assert skill.accuracy == 0  # its own group was held out


def test_probe__learns_what_is_linear_and_survives_a_single_class() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, 40))
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(np.intp) + 3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = probe(rows[:200], labels[:200], rows[200:])
    assert (found == labels[200:]).mean() > 0.85
    assert (probe(rows[:9], np.full(9, 5, np.intp), rows[200:]) == 5).all()
    assert (nearest(rows[:200], labels[:200], rows[:200]) == labels[:200]).all()
    few = probe(rows[:20], labels[:20], rows[200:])  # fewer rows than dimensions
    assert set(few.tolist()) <= {3, 4}


def test_interval__holds_the_difference_and_widens_with_groups() -> None:
    rng = np.random.default_rng(3)
    better, worse = rng.random(400) < 0.7, rng.random(400) < 0.5
    low, high = interval(better, worse, np.arange(400), seed=0)
    assert low < better.mean() - worse.mean() < high
    groups = np.repeat(np.arange(20), 20)
    tied = np.repeat(rng.random(20) < 0.6, 20)
    wide = interval(tied, np.zeros(400, bool), groups, seed=0)
    single = interval(tied, np.zeros(400, bool), np.arange(400), seed=0)
    assert wide[1] - wide[0] > 2 * (single[1] - single[0])
