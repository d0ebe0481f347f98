"""What the HTTP API takes and answers beyond ``pixsift.answers``: shared by server and client.

Requests are strict, and text that the ledger cannot hold (a NUL, half a surrogate pair) is refused
here, once for every endpoint.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pixsift.answers.collections import CollectionSettings, GenerationRule
from pixsift.answers.queues import QueueDepth
from pixsift.answers.story import Story
from pixsift.messages import Range, Where2, why_not_storable

Role = Literal["viewer", "reviewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "reviewer", "operator")
"""Each role may also do what the roles before it may."""
OutcomeName = Literal["kept", "duplicate", "rejected", "gone", "failed"]
Text = Annotated[str, StringConstraints(max_length=1024)]
ObjectId = Annotated[int, Field(ge=0, lt=1 << 63)]
Seq = Annotated[int, Field(ge=0, lt=1 << 63)]
MOST_PER_PAGE = 1000


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ask(BaseModel):
    """What a caller sends: strict, and storable as text and jsonb."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_storable(cls, raw: Any) -> Any:
        try:
            obstacle = why_not_storable(raw)
        except TypeError:  # made by Python code from models and dates, each checked by itself
            obstacle = None
        if obstacle is not None:
            raise ValueError(f"the body {obstacle}")
        return raw


class ProblemRemedy(_Answer):
    """What the caller can do about a problem."""

    code: str
    arguments: dict[str, str]
    words: str
    """The command or flag for a terminal."""


class Problem(BaseModel):
    """A problem document (RFC 9457): every answer with a status of 400 and more."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    """``urn:pixsift:problem:`` and the code."""
    title: str
    status: int
    detail: str
    code: str
    """Stable; programs may rely on it."""
    remedy: ProblemRemedy | None = None
    errors: list[dict[str, Any]] | None = None
    """Of a request that does not fit its schema: where, and what is wrong."""


class Health(_Answer):
    """Whether the process answers, and what it needs."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
    """Dependency -> ``ok``, or what is wrong with it."""


class Me(_Answer):
    """The identity of the caller."""

    actor: str
    role: Role
    how: Literal["token", "proxy", "loopback", "session"]


class Token(_Answer):
    """A bearer token; its secret is shown once, when it is made."""

    token_id: str
    name: str
    role: Role
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewToken(Token):
    """A token that was made just now."""

    token: str
    """The whole secret: keep it, it is not stored anywhere."""


class TokenList(_Answer):
    """Every token, the newest first."""

    tokens: list[Token]


class TokenAsk(Ask):
    """A token to make."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    role: Role = "viewer"
    expires_days: Annotated[float, Field(gt=0, le=3650)] | None = 90.0
    """None: never."""


class ImageRow(_Answer):
    """One image in a list, with the outcome that holds at the list's point."""

    object_id: int
    uri: str
    outcome: OutcomeName
    reason: str
    why: str
    """The reason in words."""
    distance: float | None
    representative: str | None
    representative_object_id: int | None
    flags: list[str]
    """Quality checks that fired when it was decided."""
    duplicates: int
    """Images that it represents now."""
    captured_at: datetime | None
    is_s3_time: bool
    """No capture time is known: ``captured_at`` is S3's own time of the write."""
    decided_at: datetime
    seq: int
    """Since when the outcome holds."""
    thumbnail: str | None
    """Path on this server."""


class ImagePage(_Answer):
    """A page of images, the newest decision first, as of one point of the collection."""

    collection: str
    at_seq: int
    generation: int
    images: list[ImageRow]
    next_cursor: str | None
    """For the next page of the same query; None: this was the last page."""


class ImageQuery(Ask):
    """Which images; conditions are joined by AND."""

    outcome: OutcomeName | None = None
    reason: Annotated[str, StringConstraints(max_length=100)] | None = None
    flag: Annotated[str, StringConstraints(max_length=100)] | None = None
    """Only images that this quality check flagged."""
    prefix: Text | None = None
    attributes: dict[Text, list[Text]] = Field(default_factory=dict)
    captured_after: datetime | None = None
    captured_before: datetime | None = None
    quality: dict[Text, Range] = Field(default_factory=dict)
    distance: Range | None = None
    at_seq: Seq | None = None
    """The point of the collection; None: now."""
    limit: Annotated[int, Field(ge=1, le=MOST_PER_PAGE)] = 100
    cursor: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """From the page before; the other conditions must be the same."""


class FacetValue(_Answer):
    """One value of an attribute, and how many images have it."""

    value: str | None
    images: int


class Facet(_Answer):
    """An attribute's values among the images with an outcome, the most frequent first."""

    collection: str
    attribute: str
    values: list[FacetValue]


class Image(_Answer):
    """One image: its verdict in a sentence, its story, and where its pictures are."""

    object_id: int
    uri: str
    sentences: dict[str, str]
    """Collection -> what became of the image there, in a sentence."""
    story: Story
    thumbnail: str | None
    original: str
    """Path that answers with a short-lived link."""


class Versions(_Answer):
    """Every known version of a key, newest first."""

    images: list[Image]


class OriginalLink(_Answer):
    """A link to the exact version in S3: for GET only, and for a short time."""

    url: str
    expires_at: datetime
    method: Literal["GET"] = "GET"


class Group(_Answer):
    """A representative and how many duplicates it stands for."""

    object_id: int
    uri: str
    duplicates: int
    farthest: float | None
    """Cosine distance of its farthest duplicate."""
    newest_seq: int
    thumbnail: str | None


class GroupPage(_Answer):
    """Duplicate groups in the order that was asked for."""

    collection: str
    generation: int
    seq: int
    groups: list[Group]
    next_cursor: str | None


class Member(_Answer):
    """One duplicate of a group."""

    object_id: int
    uri: str
    reason: str
    why: str
    distance: float | None
    captured_at: datetime | None
    decided_at: datetime
    seq: int
    thumbnail: str | None


class GroupMembers(_Answer):
    """The duplicates of one representative, the most doubtful first."""

    collection: str
    object_id: int
    uri: str
    members: list[Member]
    next_cursor: str | None


class GenerationList(_Answer):
    """The rules a collection was decided by, oldest first."""

    collection: str
    current: int
    generations: list[GenerationRule]


class Turn(_Answer):
    """One decision transaction of a collection: who made it, and why."""

    seq: int
    actor: str
    reason: str
    at: datetime


class TurnPage(_Answer):
    """Decision transactions, the newest first; ``before`` the last seq gives the next ones."""

    collection: str
    turns: list[Turn]


class Action(_Answer):
    """One change that was asked for through the server."""

    action_id: int
    at: datetime
    actor: str
    action: str
    collection: str | None
    detail: dict[str, Any]


class ActionPage(_Answer):
    """Changes, the newest first; ``before`` the last id gives the next ones."""

    actions: list[Action]


class Camera(_Answer):
    """The health of one camera over time."""

    camera: str
    frames: int
    status: str
    stuck: list[dict[str, Any]]
    drift: dict[str, Any] | None


class CameraReport(_Answer):
    """Frozen cameras and drifting exposure of a collection."""

    collection: str
    by: str
    cameras: list[Camera]


class CollectionList(_Answer):
    """The collections of the ledger, with their settings."""

    collections: list[CollectionSettings]


class QueueDepths(_Answer):
    """About how many messages each queue holds."""

    queues: dict[str, QueueDepth]


class SessionAsk(Ask):
    """A token to start a browser session with."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Example(Ask):
    """One image to search by: by exactly one of the three."""

    object_id: ObjectId | None = None
    uri: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """``s3://bucket/key`` of an image that the ledger knows; the URI is never fetched."""
    upload: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """Name of a file that comes with the request."""

    @model_validator(mode="after")
    def _names_one(self) -> "Example":
        if sum(v is not None for v in (self.object_id, self.uri, self.upload)) != 1:
            raise ValueError("name one of object_id, uri, upload")
        return self


class ByExamples(Ask):
    """Images that are like some examples."""

    collection: Annotated[str, StringConstraints(max_length=63)] | None = None
    """None: ``default``, or the only one."""
    examples: Annotated[list[Example], Field(max_length=1000)] = Field(default_factory=list)
    folder: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """``s3://bucket/prefix``: the newest 1,000 kept images below it are examples too."""
    counterexamples: Annotated[list[Example], Field(max_length=100)] = Field(default_factory=list)
    way: Literal["auto", "nearest", "modes", "mean"] = "auto"
    """nearest: near any example; modes: near each group of examples that look alike, in turn; mean:
    near their mean. auto: modes from three examples on."""
    where: Where2 = Field(default_factory=lambda: Where2(flagged="include"))
    """As in snapshot requests; ``flagged`` is ``include`` unless it is given."""

    @model_validator(mode="before")
    @classmethod
    def _flagged_is_included(cls, raw: Any) -> Any:
        where = raw.get("where") if isinstance(raw, dict) else None
        if isinstance(where, dict) and where.get("flagged") is None:
            return {**raw, "where": {**where, "flagged": "include"}}
        return raw


class SearchAsk(ByExamples):
    """Find the kept images that are like some examples."""

    k: Annotated[int, Field(ge=1, le=10_000)] = 20
    distance: Range | None = None
    """Bounds on the cosine distance to the nearest example."""
    duplicates: Literal["folded", "expanded"] = "folded"
    """expanded: each hit is followed by the duplicates that it stands for; k counts them."""
    own: bool = False
    """Whether the examples themselves, and images with exactly the same pixels, may be found."""
    outcome: Literal["kept", "duplicate", "any"] = "kept"
    """Which images may be found; any: kept or duplicate. Others have no vector. Beyond kept images,
    a search reads their vectors from the ledger."""
    exact: bool = False
    """Always exact, never through an approximate index, even if it takes long."""

    @model_validator(mode="after")
    def _unfolds_kept_images(self) -> "SearchAsk":
        if self.outcome != "kept" and self.duplicates == "expanded":
            raise ValueError("duplicates 'expanded' unfolds kept images: leave outcome 'kept'")
        return self


class SearchPlan(_Answer):
    """How the search was done."""

    how: Literal["resident", "scan", "index"]
    is_exact: bool
    kept: int
    """Vectors in the collection."""
    matching: int | None
    """Images that pass the filter; None: there is no filter."""
    milliseconds: float


class SearchMode(_Answer):
    """One group of examples, and how many hits it found."""

    mode: int
    examples: list[str]
    hits: int


class Hit(_Answer):
    """One image that was found."""

    rank: int
    object_id: int
    uri: str
    distance: float
    """Cosine distance to the nearest example."""
    nearest_to: str
    """That example."""
    mode: int
    """Which group of examples found it, by its place in ``modes``."""
    is_itself: bool
    """Exactly the same pixels as an example."""
    outcome: OutcomeName | None
    duplicate_of: int | None
    """Of a duplicate: the image that represents it."""
    duplicates: int
    attributes: dict[str, Any]
    captured_at: datetime | None
    thumbnail: str | None


class SearchAnswer(_Answer):
    """The hits, the best first; fewer than k only if the collection has fewer."""

    collection: str
    at_seq: int
    generation: int
    way: Literal["nearest", "modes", "mean"]
    plan: SearchPlan
    modes: list[SearchMode]
    hits: list[Hit]
    failures: dict[str, str]
    """Example -> why it was left out."""
