"""The pool: the images that may be chosen, column by column, and the filter that makes it.

Facts of every kept image are small and read first; embeddings are read only for what the filter
lets through. A pool is of one embedding space: vectors of different spaces are never compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixsift.core.choosing.rows import Float32s, Float64s, Indices, RowSource
from pixsift.core.protection import NEAR_PROTECTED
from pixsift.core.quality import DEFAULT_CHECKS, FILE_CHECKS
from pixsift.errors import RequestError
from pixsift.messages import Where, Where2, in_utc

ObjectIds = NDArray[np.int64]
MISSING = "(missing)"
"""Name of the stratum of images that lack the attribute."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One attribute of every image: ``values[codes[i]]``, or nothing where the code is -1."""

    codes: NDArray[np.int32]
    values: tuple[str, ...]

    def at(self, index: int) -> str | None:
        """The value of one image."""
        code = int(self.codes[index])
        return None if code < 0 else self.values[code]

    def strata(self, indices: Indices) -> dict[str, Indices]:
        """Indices by value, in order of the values; those without one under ``(missing)``."""
        codes = self.codes[indices]
        found = {self.values[code]: indices[codes == code] for code in np.unique(codes[codes >= 0])}
        if (codes < 0).any():
            # Some images may have a value of that name.
            found[MISSING] = np.union1d(found.get(MISSING, indices[:0]), indices[codes < 0])
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is known of N images besides their embeddings."""

    object_ids: ObjectIds
    """(N,) ascending."""
    attributes: dict[str, Column]
    quality: dict[str, Float32s]
    """Metric by name, (N,), NaN where it was not measured."""
    captured_at: Float64s
    """(N,) seconds since 1970, NaN where unknown."""
    is_s3_time: NDArray[np.bool_]
    """(N,) where that is S3's time of the write, because no capture time was known."""
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """(N,) by quality check: which images it flagged when they were decided."""

    through: NDArray[np.bool_] | None = None
    """(N,) which images have the attributes and prefix of the filter through a duplicate that they
    represent; None: the filter does not ask."""
    in_prefix: NDArray[np.bool_] | None = None
    """(N,) which of them have the prefix themselves."""

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(N,) which images a check of the picture flagged. Checks of how a file was written do not
        count: they would exclude whole cameras. Nor is what lies near it."""
        found = np.zeros(self.object_ids.size, dtype=bool)
        for name in picture_flags(self.flags):
            found |= self.flags[name]
        return found

    def subset(self, indices: Indices) -> "Facts":
        """Some of the images."""
        return Facts(
            self.object_ids[indices],
            {n: Column(c.codes[indices], c.values) for n, c in self.attributes.items()},
            {n: values[indices] for n, values in self.quality.items()},
            self.captured_at[indices],
            self.is_s3_time[indices],
            {n: mask[indices] for n, mask in self.flags.items()},
            None if self.through is None else self.through[indices],
            None if self.in_prefix is None else self.in_prefix[indices],
        )


def picture_flags(flags: Iterable[str]) -> list[str]:
    """Those that some check of the picture gave: not of the file, nor of what lies near it."""
    return [name for name in flags if name not in FILE_CHECKS and name != NEAR_PROTECTED]


@dataclass(frozen=True, slots=True)
class Times:
    """How many images a filter by time could not judge, and how many it judged by S3's time."""

    unknown: int
    """Left out: neither key, metadata, EXIF nor S3 has a time."""
    by_s3: int
    """Let through by S3's own time of the write."""


@dataclass(frozen=True, slots=True)
class LabelConflict:
    """An image that has, with its duplicates, several values of one attribute."""

    object_id: int
    attribute: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Images with their embeddings; those not ``eligible`` are only there to be kept away from."""

    facts: Facts
    rows: RowSource
    eligible: NDArray[np.bool_]
    named: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Object ids behind each URI that the request mentions; empty: such an object is unknown."""
    erased: int = 0
    """Images that were kept at that point and whose vectors an erasure has removed since."""
    times: "Times | None" = None
    """What a filter by time had to go by; None without such a filter."""
    left_out_flagged: int | None = None
    """Images that only their flags kept out; None: the request does not ask."""
    left_out_protected: int | None = None
    """Images near an evaluation set; None: there is none, or the request does not ask."""
    by_duplicates: int | None = None
    """Images with the attributes or prefix asked for only through a duplicate; None: the request
    does not ask."""
    conflicts: tuple[LabelConflict, ...] = ()
    """Of the attributes that the filter names, in the whole collection."""
    flagged: NDArray[np.bool_] | None = None
    """(N,) which images a quality check flagged; None: nothing is known of that."""

    @property
    def object_ids(self) -> ObjectIds:
        return self.facts.object_ids

    def indices_of(self, object_ids: "ObjectIds | list[int]") -> Indices:
        """Rows of some objects. Raises UserError when one is not in the pool."""
        wanted = np.asarray(object_ids, dtype=np.int64)
        places = np.searchsorted(self.object_ids, wanted)
        inside = places < self.object_ids.size
        inside[inside] = self.object_ids[places[inside]] == wanted[inside]
        if not inside.all():
            lost = ", ".join(map(str, wanted[~inside][:5]))
            raise RequestError(
                f"{(~inside).sum()} objects have no embedding in this pool, e.g. object {lost}"
            )
        return places.astype(np.intp)


def matching(facts: Facts, where: Where) -> NDArray[np.bool_]:
    """(N,) which images a filter lets through; ``prefix`` is the database's part.

    Raises UserError for an attribute or metric that no image has, with those that exist.
    """
    keep = _by_attributes(facts, where)
    if facts.through is not None:
        keep |= facts.through
    for name, bounds in where.quality.items():
        if name not in facts.quality:
            raise RequestError(
                f"unknown quality metric {name!r}; there are: {_listed(facts.quality)}"
            )
        values = facts.quality[name]
        # An image without the metric does not pass a bound.
        low = -np.inf if bounds.min is None else bounds.min
        high = np.inf if bounds.max is None else bounds.max
        with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
            keep &= (values >= np.float32(low)) & (values <= np.float32(high))
    if isinstance(where, Where2):
        keep &= _by_flags(facts, where)
    if where.captured_after is not None:
        keep &= facts.captured_at >= in_utc(where.captured_after).timestamp()
    if where.captured_before is not None:
        keep &= facts.captured_at < in_utc(where.captured_before).timestamp()
    return keep


def _by_attributes(facts: Facts, where: Where) -> NDArray[np.bool_]:
    """(N,) which images have the attributes themselves."""
    keep = np.ones(facts.object_ids.size, dtype=bool)
    for name, wanted in where.attributes.items():
        if name not in facts.attributes and facts.through is not None and facts.through.any():
            return np.zeros_like(keep)  # only duplicates have it
        column = column_of(facts, name)
        codes = [code for code, value in enumerate(column.values) if value in set(wanted)]
        keep &= np.isin(column.codes, codes)
    return keep


def by_duplicates(facts: Facts, where: Where, passing: NDArray[np.bool_]) -> int | None:
    """How many images pass only through a duplicate; None where the filter does not ask for this.

    passing: (N,) what the whole filter lets through.
    """
    if facts.through is None:
        return None
    itself = _by_attributes(facts, where)
    if facts.in_prefix is not None:
        itself &= facts.in_prefix
    return int((passing & ~itself).sum())


def _by_flags(facts: Facts, where: Where2) -> NDArray[np.bool_]:
    keep = np.ones(facts.object_ids.size, dtype=bool)
    if where.flagged != "include":
        keep = facts.flagged if where.flagged == "only" else ~facts.flagged
    if unknown := set(where.flags) - {*DEFAULT_CHECKS, NEAR_PROTECTED} - facts.flags.keys():
        raise RequestError(
            f"unknown flag {min(unknown)!r}: flags are names of quality checks, "
            f"{_listed(DEFAULT_CHECKS)}"
        )
    if where.flags:
        named = [facts.flags[name] for name in where.flags if name in facts.flags]
        keep = keep & np.any(named, axis=0) if named else np.zeros_like(keep)
    return keep


def left_out_flagged(facts: Facts, where: Where, passing: NDArray[np.bool_]) -> int | None:
    """How many images only their flags kept out; None where the filter does not ask for this.

    passing: (N,) what the whole filter lets through.
    """
    if not isinstance(where, Where2) or where.flagged != "exclude":
        return None
    anyway = matching(facts, where.model_copy(update={"flagged": "include"}))
    return int(anyway.sum() - passing.sum())


def times_of(facts: Facts, where: Where, passing: NDArray[np.bool_]) -> Times | None:
    """How many images the filter by time could not judge, and by which time; None without such a
    filter.

    passing: (N,) what the whole filter lets through.
    """
    if where.captured_after is None and where.captured_before is None:
        return None
    timeless = where.model_copy(update={"captured_after": None, "captured_before": None})
    unknown = matching(facts, timeless) & np.isnan(facts.captured_at)
    return Times(int(unknown.sum()), int((passing & facts.is_s3_time).sum()))


def column_of(facts: Facts, name: str) -> Column:
    """An attribute's column. Raises UserError when no image has it."""
    if name not in facts.attributes:
        raise RequestError(f"unknown attribute {name!r}; there are: {_listed(facts.attributes)}")
    return facts.attributes[name]


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
