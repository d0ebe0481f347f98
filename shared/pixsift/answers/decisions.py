"""What changes the decisions of a collection: undo, rulings, another rule, another model."""

from datetime import datetime
from typing import Any

from pixsift.answers.base import Answer


class ChangedOutcome(Answer):
    """One object whose outcome is another one now."""

    object_id: int
    was: str
    outcome: str
    reason: str
    representative: int | None
    distance: float | None


class NamedOutcome(ChangedOutcome):
    """The same with names, for people."""

    uri: str
    representative_uri: str | None


class TakenBack(Answer):
    """What became of a decision that was taken back."""

    sent_again: list[str]
    """URIs sent through the ingest queue once more."""
    decided_again: list[NamedOutcome]
    unchanged: int
    """Versions decided again with the same outcome."""


class RuledChange(Answer):
    """One image that a ruling gives another outcome."""

    uri: str
    was: str
    outcome: str
    reason: str
    representative: str | None
    distance: float | None


class RulingDone(Answer):
    """What rulings, or taking them back, changed; or would change (``dry_run``)."""

    collection: str
    dry_run: bool
    rulings: int
    ruling_ids: list[str]
    batch: str | None
    """Of several rulings: what they are undone by."""
    groups: int | None
    """Of a bulk ruling: groups of two images and more that were looked at."""
    changed: dict[str, int]
    """``kept -> duplicate`` and so on: how many images."""
    sample: list[RuledChange]
    """Some of these images, drawn at random."""


class RulingLine(Answer):
    """A ruling."""

    ruling_id: str
    kind: str
    uri: str
    other: str | None
    who: str
    why: str
    batch: str | None
    said_at: datetime
    from_seq: int
    to_seq: int | None
    """None: it is in force."""


class RulingList(Answer):
    """Rulings of a collection, the oldest first."""

    collection: str
    rulings: list[RulingLine]


class RuleComparison(Answer):
    """What another rule would change; nothing was changed."""

    collection: str
    at_seq: int
    epsilon_now: float
    epsilon: float
    kept_now: int
    kept: int
    duplicate_now: int
    duplicate: int
    newly_kept: int
    newly_duplicate: int
    seconds: float
    examples: list[dict[str, Any]]
    """Objects whose outcome would change: uri, from, to, of, distance."""


class SwitchedGeneration(Answer):
    """A new generation is in use."""

    collection: str
    generation: int
    seq: int
    epsilon: float
    kept: int
    duplicate: int
    seconds: float
    lock_seconds: float
    """How long decisions of the collection had to wait."""


class ReembedEstimate(Answer):
    """What a run in another embedding space takes, before it starts."""

    collection: str
    space_id: str
    to_space_id: str
    model: str
    recipe_id: str
    epsilon: float
    preset: str | None
    calibrated: bool
    objects: int
    """Judged objects that have no vector there yet."""
    fetches: int
    """GET requests: one for all objects with the same bytes."""
    bytes: int
    request_dollars: float
    """For the requests; what leaves a region is not counted."""
    seconds: float | None
    """To fetch and embed, measured on ``measured_on`` of the images; None: there are none."""
    measured_on: int
    forgotten: int
    """Expired images whose memory ends, since their bytes are gone."""


class ModelSide(Answer):
    """One of two models that are compared on a collection."""

    generation: int
    model: str
    recipe_id: str
    space_id: str
    dimension: int
    epsilon: float
    preset: str | None
    calibrated: bool
    kept: int
    duplicate: int


class ModelDisagreement(Answer):
    """An image that only one of two models calls a duplicate."""

    object_id: int
    uri: str
    representative_id: int | None
    representative: str | None
    """URI of the image that it is, or would be, a duplicate of."""
    distance: float | None
    reason: str


class ModelComparison(Answer):
    """A model next to the one in use, on the same images; the collection is as it was."""

    collection: str
    at_seq: int
    now: ModelSide
    other: ModelSide
    agreeing: int
    """Objects with the same outcome by both."""
    other_representative: int
    """Duplicates by both, of different images."""
    newly_duplicate: int
    newly_kept: int
    otherwise: int
    """Objects that differ in another way, for example rejected by only one."""
    would_be_duplicates: list[ModelDisagreement]
    would_be_kept: list[ModelDisagreement]
