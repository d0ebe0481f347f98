"""Assign chosen images to train, val and test so that nothing leaks from one to another.

What must stay together is joined first: images of one group (a recording, a robot), and images
nearer than a given distance. The joined blocks are then dealt out whole. If the blocks cannot meet
the shares, the request is refused and the blocks are named; shares are never rounded silently.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.pool import MISSING, Pool, column_of
from pixsift.core.choosing.rows import Indices, RowSource
from pixsift.core.dedup import SCREEN_MARGIN
from pixsift.errors import RequestError
from pixsift.messages import Split

TOLERANCE = 0.05
"""How far a share may be off, as blocks are not divisible."""
_ROWS = 2048
_CELLS = 512
"""Sums of blocks nearer to each other than a 512th of all images are taken for one: 25 times finer
than the tolerance, and a few seconds of search at most."""


def assign(
    pool: Pool,
    indices: Indices,
    split: Split,
    *,
    seed: int = 0,
    earlier: Mapping[int, str] | None = None,
) -> list[str]:
    """The split of each chosen image, in order: ``train``, ``val`` or ``test``.

    indices: (K,) rows of the pool. Images without a grouping attribute form one group: they may
    belong together. earlier: splits of rows chosen before; what must stay with one of those goes to
    its split; the rest is dealt so that the shares are as near as possible. Raises UserError for an
    unknown attribute, where no assignment comes within 5 % of all images of the shares asked for,
    or a split would stay empty, and where an image would have to stay with earlier ones of two
    splits.
    """
    shares = {name: share for name in ("train", "val", "test")
              if (share := getattr(split, name)) > 0}  # fmt: skip
    if earlier:
        return _grown(pool, indices, split, earlier, shares=shares, seed=seed)
    labels, groups = _grouped(pool, indices, split.group_by)
    if len(shares) == 1:
        return [next(iter(shares))] * indices.size
    if indices.size < len(shares):
        raise RequestError(f"cannot split {indices.size} images into {len(shares)} splits")
    before = np.unique(labels).size
    _join_all_near(pool, indices, split, labels)
    blocks = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return _deal(blocks, shares, indices.size, seed=seed, story=_story(
        blocks, split, groups=groups, joined=before - len(blocks)
    ))  # fmt: skip


def _grown(
    pool: Pool,
    indices: Indices,
    split: Split,
    earlier: Mapping[int, str],
    *,
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    old = np.array(sorted(set(earlier) - set(indices.tolist())), dtype=np.intp)
    together = np.concatenate([indices, old])
    labels, groups = _grouped(pool, together, split.group_by)
    before = np.unique(labels).size
    _join_all_near(pool, together, split, labels)
    homes: dict[int, set[str]] = {}
    for label, row in zip(labels[indices.size :].tolist(), old.tolist(), strict=True):
        homes.setdefault(label, set()).add(earlier[row])
    fresh = labels[: indices.size]
    torn = [i for i, label in enumerate(fresh.tolist()) if len(homes.get(label, ())) > 1]
    if torn:
        inside = f" of {groups[torn[0]]}" if groups[torn[0]] else ""
        raise RequestError(
            f"{len(torn)} images must stay with images that the earlier snapshot has in "
            f"{' and '.join(sorted(homes[int(fresh[torn[0]])]))}, e.g. object "
            f"{pool.object_ids[indices[torn[0]]]}{inside}: leave them out (where, exclude), or "
            "split by fewer attributes (group_by) or a smaller min_distance"
        )
    result = [next(iter(homes.get(label, {""}))) for label in fresh.tolist()]
    free = [i for i, name in enumerate(result) if not name]
    blocks = [[i for i in free if fresh[i] == label] for label in np.unique(fresh[free])]
    goals = {
        name: max(0.0, share * indices.size - result.count(name)) for name, share in shares.items()
    }
    wanted = {name: goal for name, goal in goals.items() if goal >= 0.5} or dict(shares)
    wanted = dict(sorted(wanted.items(), key=lambda each: -each[1])[: max(1, len(blocks))])
    scale = sum(wanted.values())
    story = _story(blocks, split, groups=groups, joined=before - np.unique(labels).size)
    dealt = _deal(
        [list(range(start, start + len(block))) for start, block in _starts(blocks)],
        {name: goal / scale for name, goal in wanted.items()}, len(free), seed=seed, story=story,
    ) if len(wanted) > 1 else [next(iter(wanted))] * len(free)  # fmt: skip
    for i, name in zip([i for block in blocks for i in block], dealt, strict=True):
        result[i] = name
    return result


def _starts(blocks: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
    start = 0
    for block in blocks:
        yield start, block
        start += len(block)


def _join_all_near(pool: Pool, indices: Indices, split: Split, labels: NDArray[np.intp]) -> None:
    if split.min_distance:
        order = np.argsort(indices)
        together = labels[order]
        join_near(pool.rows.subset(indices[order]), split.min_distance, together)
        labels[order] = together


def join_near(rows: RowSource, min_distance: float, labels: NDArray[np.intp]) -> None:
    """Give one label to the blocks of every pair of cosine distance below ``min_distance``.

    labels: (N,) changed in place. Every pair is looked at: n²/2 float32 products as a screen, and
    the float64 definition for those near the bound.
    """
    for start, block in rows.blocks(_ROWS):
        left = _unit(block)
        for other in range(start, rows.count, _ROWS):
            right = _unit(rows.take(np.arange(other, min(other + _ROWS, rows.count))))
            far = 1 - left @ right.T
            near = far < min_distance + SCREEN_MARGIN
            for i in np.flatnonzero(near.sum(axis=1) > (other == start)):
                a = start + int(i)
                for j in np.flatnonzero(
                    near[i] & (labels[other : other + len(right)] != labels[a])
                ):
                    sure = far[i, j] < min_distance - SCREEN_MARGIN
                    if sure or _distance(rows, a, other + int(j)) < min_distance:
                        _join(labels, a, other + int(j))


def _join(labels: NDArray[np.intp], a: int, b: int) -> None:
    low, high = sorted((labels[a], labels[b]))
    if low != high:
        labels[labels == high] = low


def _distance(rows: RowSource, a: int, b: int) -> float:
    x, y = rows.take(np.array([a, b], dtype=np.intp))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return 1.0 - float(x @ y) / scale if scale else 1.0


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)


def _grouped(
    pool: Pool, indices: Indices, names: Sequence[str]
) -> tuple[NDArray[np.intp], list[str]]:
    """A label per image, the same within a group, and the group's name."""
    if not names:
        return np.arange(indices.size), [""] * indices.size
    columns = [column_of(pool.facts, name) for name in names]
    groups = [
        ", ".join(f"{name}={column.at(int(i)) or MISSING}"
                  for name, column in zip(names, columns, strict=True))
        for i in indices
    ]  # fmt: skip
    return np.unique(groups, return_inverse=True)[1].astype(np.intp), groups


def _deal(
    blocks: list[list[int]], shares: dict[str, float], total: int, *, seed: int, story: str
) -> list[str]:
    """Deals the largest block first, to the split that lacks most; then moves single blocks while
    that brings the shares nearer. If the shares are still not near enough, all sums of blocks are
    tried before the request is refused.
    """
    order = np.random.default_rng([seed, 0x7370]).permutation(len(blocks))
    shuffled = sorted((blocks[i] for i in order), key=len, reverse=True)
    names = list(shares)
    counts = dict.fromkeys(names, 0)
    home: list[str] = []
    for block in shuffled:
        target = max(names, key=lambda name: shares[name] * total - counts[name])
        counts[target] += len(block)
        home.append(target)
    _fill_empty(shuffled, home, counts)
    goals = {name: shares[name] * total for name in names}
    _move_nearer(shuffled, home, counts, goals)
    slack = max(TOLERANCE * total, 1.0) + 1e-9 * total
    if not _near(counts, goals, slack):
        home = _every_sum(shuffled, goals, slack) or home
        counts = {name: sum(len(b) for b, h in zip(shuffled, home, strict=True) if h == name)
                  for name in names}  # fmt: skip
    if not _near(counts, goals, slack):
        got = ", ".join(f"{name} {counts[name]} (requested {shares[name] * total:.4g})"
                        for name in names)  # fmt: skip
        raise RequestError(f"cannot split {total} images so: nearest found is {got}; {story}")
    result = [""] * total
    for block, name in zip(shuffled, home, strict=True):
        for position in block:
            result[position] = name
    return result


def _near(counts: dict[str, int], goals: dict[str, float], slack: float) -> bool:
    return all(count > 0 and abs(count - goals[name]) <= slack for name, count in counts.items())


def _fill_empty(blocks: list[list[int]], home: list[str], counts: dict[str, int]) -> None:
    """Give an empty split the smallest block of a split that has several."""
    for name in [name for name, count in counts.items() if not count]:
        for i in range(len(blocks) - 1, -1, -1):
            if home.count(home[i]) > 1:
                counts[home[i]] -= len(blocks[i])
                counts[name] += len(blocks[i])
                home[i] = name
                break


def _move_nearer(
    blocks: list[list[int]], home: list[str], counts: dict[str, int], goals: dict[str, float]
) -> None:
    """Move single blocks as long as that brings the counts nearer to the goals."""
    for _ in range(3):
        for i, block in enumerate(blocks):
            size, old = len(block), home[i]
            surplus = counts[old] - goals[old]
            new = min(goals, key=lambda name: counts[name] - goals[name])
            # Squared error falls by 2 size (surplus - lack - size) if the block moves.
            if surplus - (counts[new] - goals[new]) > size < counts[old]:
                counts[old] -= size
                counts[new] += size
                home[i] = new


def _every_sum(blocks: list[list[int]], goals: dict[str, float], slack: float) -> list[str] | None:
    """The split of each block, nearest to the goals among all ways; None if none is near enough.

    blocks: largest first. Subset sums in two dimensions, the sizes of the smaller splits; the
    largest split takes the rest. Blocks smaller than a cell fill up what the others leave.
    """
    total = sum(map(len, blocks))
    width = -(-total // _CELLS)
    large = [len(block) for block in blocks if len(block) >= width]
    *small, rest = sorted(goals, key=lambda name: goals[name])
    wanted = np.array([goals[name] for name in [*small, rest]])
    reach = _Sums(np.array([int(goals[name] + slack) for name in small]), width)
    for size in large:
        reach.add(size)
    found = reach.sums
    sizes = np.column_stack([found, sum(large) - found.sum(axis=1)])
    off_by = _off_by(wanted - sizes)
    near = (np.abs(off_by) <= slack) & (wanted - off_by >= 1)
    fits = np.flatnonzero(near.all(axis=1))
    if not fits.size:
        return None
    best = int(fits[np.argmin(np.square(off_by[fits]).sum(axis=1))])
    home = [rest] * len(large)
    for number, axis in reach.moves(best):
        home[number] = small[axis]
    lacking = dict(zip([*small, rest], wanted - sizes[best], strict=True))
    for block in blocks[len(large) :]:
        target = max(lacking, key=lambda name: lacking[name])
        lacking[target] -= len(block)
        home.append(target)
    return home


def _off_by(lacks: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, S) what each split lacks (or has too much, negative) once the small blocks are dealt.

    They come to the sum of all lacks, and go where images lack in proportion.
    """
    open_ = np.maximum(lacks, 0)
    over = open_ - lacks
    scale = over.sum(axis=1) / np.maximum(open_.sum(axis=1), 1e-9)
    return np.asarray(open_ * scale[:, None] - over, dtype=np.float64)


class _Sums:
    """Sums that some blocks can make on each axis, one for each cell, and how they are made."""

    def __init__(self, limits: NDArray[np.int64], width: int) -> None:
        """limits: largest sum per axis; width: of a cell."""
        self._limits = limits
        self._width = width
        self._shape = tuple(int(limit) // width + 1 for limit in limits)
        self._taken = np.zeros(self._shape, dtype=bool)
        self._taken.flat[0] = True
        self.sums: NDArray[np.int64] = np.zeros((1, limits.size), np.int64)
        """(M, axes) what can be made."""
        self._made = np.full((1, 3), -1, np.int64)
        """(M, 3) from which sum, by which block, on which axis."""
        self._blocks = 0

    def add(self, size: int) -> None:
        """One more block: it may lie on one of the axes, or on none."""
        before = self.sums
        for axis in range(self._limits.size):
            origins = np.flatnonzero(before[:, axis] + size <= self._limits[axis])
            fresh = before[origins]
            fresh[:, axis] += size
            cells = np.ravel_multi_index(tuple((fresh // self._width).T), self._shape)
            cells, first = np.unique(cells, return_index=True)
            first = first[~self._taken.flat[cells]]
            self._taken.flat[cells] = True
            self.sums = np.concatenate([self.sums, fresh[first]])
            by = np.full_like(first, self._blocks), np.full_like(first, axis)
            self._made = np.concatenate([self._made, np.column_stack([origins[first], *by])])
        self._blocks += 1

    def moves(self, index: int) -> Iterator[tuple[int, int]]:
        """(block, axis) of each block in a sum that does not lie on the rest."""
        while index:
            index, block, axis = self._made[index].tolist()
            yield block, axis


def _story(blocks: list[list[int]], split: Split, *, groups: list[str], joined: int) -> str:
    largest = max(blocks, key=len, default=[])
    inside = sorted({groups[i] for i in largest} - {""})
    parts = [f"{len(blocks)} groups must stay in one split; the largest has {len(largest)} images"]
    if inside:
        more = f" and {len(inside) - 3} more groups" if len(inside) > 3 else ""
        parts.append(f"of {'; '.join(inside[:3])}{more}")
    if split.min_distance:
        parts.append(f"pairs nearer than {split.min_distance:g} joined {joined} more")
    return ", ".join(parts)
