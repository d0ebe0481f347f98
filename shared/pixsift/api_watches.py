"""What the HTTP API takes and answers of watches."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from pixsift.api import ByExamples
from pixsift.api import _Answer as Answer

Destination = Literal["ledger", "events"]


class WatchAsk(ByExamples):
    """Watch for images like some examples, from now on."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    max_distance: Annotated[float, Field(ge=0, le=2)]
    """An image matches up to this cosine distance to the nearest mode."""
    duplicates: bool = False
    """Whether images that are duplicates are matched as well as kept ones."""
    destination: Destination = "ledger"
    """events: each hit is also announced on the event bus, as ``WatchMatched``."""

    @field_validator("name")
    @classmethod
    def _name_is_printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("the name must be printable")
        return name


class Watch(Answer):
    """A standing query."""

    watch_id: int
    name: str
    collection: str
    state: Literal["watching", "ended", "other_space"]
    """other_space: its collection has moved to another embedding space; nothing can match."""
    max_distance: float
    where: dict[str, Any]
    duplicates: bool
    destination: Destination
    modes: list[list[str]]
    """Per mode, the examples behind it."""
    created_by: str
    created_at: datetime
    from_seq: int
    """Images decided after this turn are matched when they arrive; older ones by a past run."""
    hits: int
    last_hit_at: datetime | None
    ended_at: datetime | None
    ended_why: str | None


class WatchList(Answer):
    """Watches, the newest first."""

    watches: list[Watch]


class WatchHit(Answer):
    """An image that a watch matched; there is one for each image and watch."""

    hit_id: int
    watch_id: int
    watch: str
    object_id: int
    uri: str
    outcome: str
    """When it was matched."""
    distance: float
    mode: int
    is_past: bool
    """Found by running the watch over the past."""
    seq: int | None
    """The turn that decided it; None: found in the past."""
    at: datetime
    captured_at: datetime | None
    announced_at: datetime | None
    thumbnail: str | None


class WatchHitPage(Answer):
    """Hits of a watch, the newest first; ``before`` the last id gives the next ones."""

    watch_id: int
    hits: list[WatchHit]


class WatchCount(Answer):
    """How many images one watch matched."""

    watch_id: int
    watch: str
    hits: int


class WatchHits(Answer):
    """Of an event ``watch_hits``: what watches matched since the event before."""

    collection: str
    from_seq: int
    """Excluded."""
    to_seq: int
    """Included."""
    counts: list[WatchCount]
    hits: list[WatchHit]
    """The newest of them, 50 at most."""


class WatchPast(Answer):
    """A watch run over what was decided before it began."""

    watch_id: int
    compared: int
    matched: int
    """Near enough, before the filter."""
    added: int
    """Hits that were not there before."""


class WatchTrial(Answer):
    """What a watch would have matched among the images kept now; nothing is stored."""

    collection: str
    modes: list[list[str]]
    compared: int
    matching: int
    """Within its distance and filter."""
    nearest: list["TrialHit"]
    """The nearest of all that pass its filter, to find a distance by."""


class TrialHit(Answer):
    """One image of a trial."""

    object_id: int
    uri: str
    distance: float
    mode: int
    thumbnail: str | None


WatchTrial.model_rebuild()
