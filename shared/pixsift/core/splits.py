"""Assign chosen images to train, val and test so that nothing leaks from one to another.

What must stay together is joined first: images of one group (a recording, a robot), and images
nearer than a given distance. The joined blocks are then dealt out whole. A demand that the blocks
cannot meet is refused with the blocks that make it so, never rounded in silence.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixsift.core.dedup import SCREEN_MARGIN
from pixsift.core.pool import MISSING, Pool, column_of
from pixsift.core.rows import Indices, RowSource
from pixsift.errors import UserError
from pixsift.messages import Split

TOLERANCE = 0.05
"""How far a share may be off, as blocks are not divisible."""
_ROWS = 2048
_SUMS = 5e8
"""Most steps of the search over all sums of blocks: about a second."""


def assign(pool: Pool, indices: Indices, split: Split, *, seed: int = 0) -> list[str]:
    """The split of each chosen image, in order: ``train``, ``val`` or ``test``.

    indices: (K,) rows of the pool. Images without a grouping attribute form one group: nobody
    knows that they are apart. Raises UserError for an unknown attribute, and where no assignment
    comes within 5 % of all images of the shares asked for, or a split would stay empty.
    """
    shares = {name: share for name in ("train", "val", "test")
              if (share := getattr(split, name)) > 0}  # fmt: skip
    labels, groups = _grouped(pool, indices, split.group_by)
    if len(shares) == 1:
        return [next(iter(shares))] * indices.size
    if indices.size < len(shares):
        raise UserError(f"cannot split {indices.size} images into {len(shares)} splits")
    before = np.unique(labels).size
    if split.min_distance:
        order = np.argsort(indices)
        together = labels[order]
        join_near(pool.rows.subset(indices[order]), split.min_distance, together)
        labels[order] = together
    blocks = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return _deal(blocks, shares, indices.size, seed=seed, story=_story(
        blocks, split, groups=groups, joined=before - len(blocks)
    ))  # fmt: skip


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
    """Largest block first, to the split that lacks most; then single moves that come nearer.

    Where that is not near enough, every sum of blocks is looked at before the demand is refused.
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
    near = all(abs(counts[name] - goals[name]) <= slack for name in names)
    if not near or min(counts.values()) == 0:
        found = _every_sum(shuffled, goals, slack)
        if found is not None:
            home, near = found, True
            counts = {name: sum(len(b) for b, h in zip(shuffled, home, strict=True) if h == name)
                      for name in names}  # fmt: skip
    if not near or min(counts.values()) == 0:
        got = ", ".join(f"{name} {counts[name]} (asked {shares[name] * total:.4g})"
                        for name in names)  # fmt: skip
        raise UserError(f"cannot split {total} images so: nearest found is {got}; {story}")
    result = [""] * total
    for block, name in zip(shuffled, home, strict=True):
        for position in block:
            result[position] = name
    return result


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

    Subset sums in two dimensions, the sizes of the smaller splits; the largest split takes the
    rest. Also None where that would be too much work: so many blocks are small ones, and dealing
    them out comes near.
    """
    total = sum(map(len, blocks))
    *small, rest = sorted(goals, key=lambda name: goals[name])
    shape = tuple(int(goals[name] + slack) + 1 for name in small)
    if np.prod(shape, dtype=float) * len(blocks) > _SUMS:
        return None
    # The move that first made a sum: 1 + block * axes + axis; 0 where it cannot be made.
    made = np.zeros(shape, np.int32)
    made[(0,) * len(shape)] = -1
    for i, block in enumerate(blocks):
        before = made != 0
        for axis in range(len(shape)):
            to = tuple(slice(len(block), None) if a == axis else slice(None)
                       for a in range(len(shape)))  # fmt: skip
            off = tuple(slice(None, max(0, shape[a] - len(block))) if a == axis else slice(None)
                        for a in range(len(shape)))  # fmt: skip
            fresh = made[to]
            fresh[before[off] & (fresh == 0)] = 1 + i * len(shape) + axis
    sums = np.argwhere(made != 0)
    sizes = np.column_stack([sums, total - sums.sum(axis=1)])
    off_by = np.abs(sizes - np.array([goals[name] for name in [*small, rest]]))
    fits = np.flatnonzero((off_by <= slack).all(axis=1) & (sizes > 0).all(axis=1))
    if not fits.size:
        return None
    at = sums[fits[np.argmin(np.square(off_by[fits]).sum(axis=1))]].tolist()
    home = [rest] * len(blocks)
    while any(at):
        block_index, axis = divmod(int(made[tuple(at)]) - 1, len(shape))
        home[block_index] = small[axis]
        at[axis] -= len(blocks[block_index])
    return home


def _story(blocks: list[list[int]], split: Split, *, groups: list[str], joined: int) -> str:
    largest = max(blocks, key=len)
    inside = sorted({groups[i] for i in largest} - {""})
    parts = [f"{len(blocks)} blocks must stay whole, the largest holds {len(largest)} images"]
    if inside:
        more = f" and {len(inside) - 3} more groups" if len(inside) > 3 else ""
        parts.append(f"of {'; '.join(inside[:3])}{more}")
    if split.min_distance:
        parts.append(f"pairs nearer than {split.min_distance:g} joined {joined} more")
    return ", ".join(parts)
