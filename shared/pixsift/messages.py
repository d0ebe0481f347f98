"""The format of every message body on a queue: versioned, and strict for our own messages. S3's
notifications are not here: ``pixsift.core.events`` parses them leniently.
"""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Bigint = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What a column of the ledger can hold."""
Strategy = Literal[
    "k_center", "balanced", "stratified", "similar", "random", "all",
    "typical", "mixed", "farthest", "auto",
]  # fmt: skip
"""The second line exists since snapshot-request/2."""
_FIRST_STRATEGIES = ("k_center", "balanced", "stratified", "similar", "random", "all")
Inside = Literal["k_center", "balanced", "similar", "random", "typical", "mixed", "farthest"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes it: an odd number of backslashes before u0000."""


def why_not_storable(raw: Any) -> str | None:
    """Why the ledger's text and jsonb cannot hold this JSON value; None: they can."""
    try:
        stored = json.dumps(raw, ensure_ascii=False, allow_nan=False)  # jsonb has no NaN
        stored.encode()  # a database does not accept half a surrogate pair
    except (ValueError, RecursionError):
        return "cannot be stored"
    return "contains a NUL character" if _NUL.search(stored) else None


class Range(_Message):
    """A closed interval; either end may be missing."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _holds_something(self) -> "Range":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Where(_Message):
    """Which kept images may be chosen; conditions are joined by AND."""

    attributes: dict[str, list[str]] = Field(default_factory=dict)
    captured_after: datetime | None = None
    captured_before: datetime | None = None
    prefix: str | None = None
    quality: dict[str, Range] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times_hold_something(self) -> "Where":
        after, before = self.captured_after, self.captured_before
        if after is not None and before is not None and in_utc(after) >= in_utc(before):
            raise ValueError("captured_after must be before captured_before")
        return self


Flagged = Literal["exclude", "include", "only"]


class Where2(Where):
    """Which kept images may be chosen, since snapshot-request/2."""

    flagged: Flagged = "exclude"
    """Images that a quality check flagged; flags of how a file was written do not count."""
    flags: list[str] = Field(default_factory=list)
    """Only images with at least one of these flags, of whatever kind."""
    labels_of_duplicates: bool = True
    """Attributes and prefix also match an image through one of the duplicates it represents."""

    @model_validator(mode="before")
    @classmethod
    def _flags_include_the_flagged(cls, given: Any) -> Any:
        """Naming flags includes flagged images; the stored request says so."""
        if isinstance(given, dict) and given.get("flags") and given.get("flagged") is None:
            return {**given, "flagged": "include"}
        return given

    @model_validator(mode="after")
    def _flags_are_used(self) -> "Where2":
        if self.flags and self.flagged == "exclude":
            raise ValueError("flags names flagged images: leave out flagged 'exclude'")
        return self


def in_utc(moment: datetime) -> datetime:
    """The moment; without an offset it is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Quota(_Message):
    """Shares per stratum, for ``stratified`` and every strategy that can choose inside strata."""

    by: str
    share: Literal["equal", "proportional", "explicit"] = "equal"
    counts: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    cap: int | None = Field(default=None, ge=1)
    inside: Inside | None = None
    """How each stratum is chosen from; None: as the strategy says, ``stratified`` by k-center."""

    @model_validator(mode="after")
    def _counts_are_used(self) -> "Quota":
        if self.counts and self.share != "explicit":
            raise ValueError(f"counts need share 'explicit', not {self.share!r}")
        return self


class Select(_Message):
    """How images are chosen from the pool in snapshot-request/1; it never changes."""

    strategy: Strategy = "k_center"
    k: int | None = Field(default=None, ge=1)
    seed: Bigint = 0
    preselected_snapshot: str | None = None
    exclude: list[str] = Field(default_factory=list)
    """s3:// URIs (``?versionId=`` optional) never to be chosen."""
    quota: Quota | None = None
    clusters: int | None = Field(default=None, ge=1)
    cluster_share: Literal["equal", "sqrt", "proportional"] = "equal"
    trim_outliers: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of the most isolated points left out of the pool, and listed."""
    max_pool: int | None = Field(default=None, ge=1)
    """Cap on the candidate pool (a seeded random subset of it)."""
    similar_to: list[str] = Field(default_factory=list)
    """Targets of ``similar``: s3:// URIs of images in the ledger."""
    dissimilar_to: list[str] = Field(default_factory=list)

    at_most: bool = False
    """Take all images if there are fewer than k; without it that is refused."""

    @model_validator(mode="after")
    def _strategy_is_of_this_version(self) -> "Select":
        inside = self.quota.inside if self.quota else None
        for name in (self.strategy, inside):
            if name is not None and name not in self.strategies():
                raise ValueError(f"strategy {name!r} needs schema 'pixsift.snapshot-request/2'")
        if self.cluster_share == "proportional" and "auto" not in self.strategies():
            raise ValueError(
                "cluster_share 'proportional' needs schema 'pixsift.snapshot-request/2'"
            )
        return self

    @classmethod
    def strategies(cls) -> tuple[str, ...]:
        """The strategies of this version."""
        return _FIRST_STRATEGIES

    @property
    def inside(self) -> Strategy:
        """How to choose from the whole pool, or from each stratum of the quota."""
        if self.strategy != "stratified":
            return self.strategy
        return (self.quota.inside if self.quota else None) or self.inside_by_default()

    @classmethod
    def inside_by_default(cls) -> Strategy:
        """How ``stratified`` chooses from each stratum."""
        return "k_center"

    @model_validator(mode="after")
    def _strategy_has_what_it_needs(self) -> "Select":
        if self.strategy != "all" and self.k is None:
            raise ValueError(f"strategy {self.strategy!r} needs k, the number of images to choose")
        if self.strategy == "stratified" and self.quota is None:
            raise ValueError("strategy 'stratified' needs quota, e.g. {'by': 'robot'}")
        if self.inside == "similar" and not self.similar_to:
            raise ValueError("strategy 'similar' needs similar_to, a list of s3:// URIs")
        if self.strategy == "all" and (self.k is not None or self.at_most):
            raise ValueError("strategy 'all' takes every image: remove k and at_most")
        return self

    @model_validator(mode="after")
    def _strategy_uses_all_of_it(self) -> "Select":
        """A field that the strategy would ignore silently is refused."""
        share = type(self).model_fields["cluster_share"].default
        if self.inside != "balanced" and (self.clusters or self.cluster_share != share):
            raise ValueError("clusters and cluster_share need strategy 'balanced'")
        if self.inside != "similar" and (self.similar_to or self.dissimilar_to):
            raise ValueError("similar_to and dissimilar_to need strategy 'similar'")
        if self.quota is None:
            return self
        if self.strategy == "all":
            raise ValueError("strategy 'all' cannot be combined with a quota")
        if self.quota.inside not in (None, self.inside):
            raise ValueError(
                f"quota.inside {self.quota.inside!r} contradicts strategy {self.strategy!r}: "
                "remove it, or use 'stratified'"
            )
        if self.at_most and self.quota.share == "explicit":
            raise ValueError("at_most cannot be combined with explicit counts, which add up to k")
        return self


class Preference(_Message):
    """Prefer candidates with much (or little) of a quality metric."""

    metric: str
    strength: float = Field(default=0.5, gt=0.0, le=10.0)
    """The advantage of the best image by this metric over the worst, in gains of a mean pick."""
    low: bool = False
    """Prefer small values."""


class Emphasis(_Message):
    """Gives images more weight to be represented, by a number in an attribute."""

    attribute: str
    """For example a model's uncertainty or loss, from a sidecar; its rank in the pool counts."""
    strength: float = Field(default=0.8, gt=0.0, le=1.0)
    """0: all count alike; 1: the smallest counts nothing, the largest twice the mean."""


class Balance(_Message):
    """A soft target: strata that have too few images are preferred, if their images are useful."""

    by: str
    share: Literal["equal", "proportional"] = "equal"
    strength: float = Field(default=1.0, gt=0.0, le=100.0)
    """The advantage of an image of a stratum with too few, in gains of a mean pick."""


_TRIMMED = {"k_center": 0.15, "typical": 0.1, "mixed": 0.1, "balanced": 0.1}
"""The largest share of odd images that these strategies leave out by default
(docs/selection.md)."""
_WITH_TERMS = ("typical", "mixed", "auto")


class Select2(Select):
    """How images are chosen from the pool."""

    strategy: Strategy = "auto"
    purpose: Literal["training", "rare"] = "training"
    """The purpose for ``auto``: a model's accuracy, or rare scenes."""
    cluster_share: Literal["equal", "sqrt", "proportional"] = "sqrt"
    min_distance: float = Field(default=0.0, ge=0.0, le=1.0)
    """No two chosen, and none with one chosen earlier, lie nearer than this cosine distance."""
    prefer: list[Preference] = Field(default_factory=list)
    emphasize: Emphasis | None = None
    novelty: float = Field(default=0.0, ge=0.0, le=1.0)
    """How much images far from ``preselected_snapshot`` count more than near ones."""
    balance: Balance | None = None
    similar_way: Literal["nearest", "modes", "mean"] = "nearest"
    """Of ``similar``: near any target; near each group of targets that look alike, in turn; near
    their mean. A search by three examples or more goes by ``modes``."""
    exact: bool | None = None
    """Of ``typical``: exact at any size, or pruned; None: exact up to 10,000 images."""
    protected: Literal["exclude", "include"] = "exclude"
    """Images within the distance of an evaluation set that the collection protects."""

    @classmethod
    def strategies(cls) -> tuple[str, ...]:
        """The strategies of this version."""
        return (*_FIRST_STRATEGIES, "typical", "mixed", "farthest", "auto")

    @classmethod
    def inside_by_default(cls) -> Strategy:
        """How ``stratified`` chooses from each stratum."""
        return "typical"

    @model_validator(mode="before")
    @classmethod
    def _trimming_is_said(cls, given: Any) -> Any:
        """The default is written into the request. It is an upper bound: only odd images are left
        out."""
        if not isinstance(given, dict) or given.get("trim_outliers") is not None:
            return given
        strategy, quota = given.get("strategy", "auto"), given.get("quota")
        if strategy == "auto":
            return given  # reported when the request is resolved
        if strategy == "stratified" and isinstance(quota, dict):
            strategy = quota.get("inside") or "typical"
        share = _TRIMMED.get(strategy, 0.0) if isinstance(strategy, str) else 0.0
        return {**given, "trim_outliers": share}

    @model_validator(mode="after")
    def _terms_are_used(self) -> "Select2":
        terms = {"prefer": self.prefer, "emphasize": self.emphasize, "novelty": self.novelty,
                 "balance": self.balance}  # fmt: skip
        for name, value in terms.items():
            if value and self.inside not in _WITH_TERMS:
                raise ValueError(f"{name} needs strategy 'typical', 'mixed' or 'auto'")
        if self.novelty and self.preselected_snapshot is None:
            raise ValueError("novelty needs preselected_snapshot, the snapshot to be new against")
        if self.balance and self.quota:
            raise ValueError("balance is a soft target, quota a hard one: leave one of them out")
        if self.exact is not None and self.inside not in (*_WITH_TERMS, "balanced"):
            raise ValueError("exact needs strategy 'typical', 'mixed', 'balanced' or 'auto'")
        if (
            self.strategy == "auto"
            and self.purpose == "rare"
            and (any(terms.values()) or self.exact is not None)
        ):
            raise ValueError(
                "purpose 'rare' chooses by k_center: leave out prefer, emphasize, "
                "novelty, balance and exact, or name strategy 'typical' or 'mixed'"
            )
        if self.similar_way != "nearest" and self.inside != "similar":
            raise ValueError("similar_way needs strategy 'similar'")
        if self.min_distance and self.strategy == "all":
            raise ValueError("strategy 'all' takes every image: leave out min_distance")
        return self


class Split(_Message):
    """Shares of the splits, and what must stay within one split."""

    train: float = Field(default=1.0, ge=0.0, le=1.0)
    val: float = Field(default=0.0, ge=0.0, le=1.0)
    test: float = Field(default=0.0, ge=0.0, le=1.0)
    group_by: list[str] = Field(default_factory=list)
    min_distance: float | None = Field(default=None, ge=0.0, le=2.0)
    """No pair closer than this cosine distance may lie in two splits."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> "Split":
        total = self.train + self.val + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"split shares add up to {total:g}, not to 1")
        return self


class Export(_Message):
    """The content of the snapshot."""

    mode: Literal["copy", "reference"] = "copy"
    formats: list[Literal["parquet", "webdataset"]] = ["parquet"]

    @model_validator(mode="after")
    def _references_hold_no_bytes(self) -> "Export":
        if self.mode == "reference" and "webdataset" in self.formats:
            raise ValueError("format 'webdataset' needs image bytes: use mode 'copy'")
        return self


class SnapshotRequest(_Message):
    """Ask for a snapshot: the same model for SQS, CLI and HTTP."""

    schema_: Literal["pixsift.snapshot-request/1"] = Field(
        default="pixsift.snapshot-request/1", alias="schema"
    )
    request_id: str = Field(min_length=1, max_length=128)
    collection: Name
    name: Name
    at_seq: Bigint | None = None
    """The fixed point of the collection; None means now, and is resolved once."""
    where: Where = Field(default_factory=Where)
    select: Select
    split: Split = Field(default_factory=Split)
    export: Export = Field(default_factory=Export)

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def spec(self) -> dict[str, Any]:
        """The fields that decide the list of images and its form, without the request's id and
        time."""
        return self.model_dump(mode="json", by_alias=True, exclude={"request_id", "at_seq"})


class SnapshotRequest2(SnapshotRequest):
    """Ask for a snapshot, with the strategies and defaults of docs/selection.md."""

    schema_: Literal["pixsift.snapshot-request/2"] = Field(  # type: ignore[assignment]
        default="pixsift.snapshot-request/2", alias="schema"
    )
    where: Where2 = Field(default_factory=Where2)
    select: Select2

    def spec(self) -> dict[str, Any]:
        """Without what says nothing: a collection that protects nothing keeps its hashes."""
        told = super().spec()
        if self.select.protected == "exclude":
            del told["select"]["protected"]
        if self.select.similar_way == "nearest":
            del told["select"]["similar_way"]
        return told


def parse_snapshot_request(raw: dict[str, Any]) -> SnapshotRequest:
    """A request of the version it names, the first where it names none. Raises ValidationError."""
    is_second = raw.get("schema") == "pixsift.snapshot-request/2"
    return (SnapshotRequest2 if is_second else SnapshotRequest).model_validate(raw)


class Backfill(_Message):
    """Existing object versions to judge, many per message (sent by backfill and reconcile)."""

    schema_: Literal["pixsift.backfill/1"] = Field(default="pixsift.backfill/1", alias="schema")
    bucket: str
    objects: list["BackfillObject"] = Field(min_length=1, max_length=1000)

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class BackfillObject(_Message):
    """One object version as a bucket listing shows it; the key is raw, not URL-encoded."""

    key: str
    version_id: str | None = None
    etag: str | None = None
    size_bytes: int | None = None
    removed: bool = False
    """Deleted at S3, as far as the sender saw; the consumer asks S3 itself."""
    delete_marker: bool = False
    """With ``removed``: it still exists, but is hidden by a delete marker."""


Backfill.model_rebuild()
