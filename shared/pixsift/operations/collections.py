"""Collections: create one with a calibrated threshold, change it, show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.postgres.database import Database
from pixsift.answers.collections import (
    CollectionDetails,
    CollectionLine,
    CollectionSettings,
    Counts,
)
from pixsift.core import presets
from pixsift.core.calibration import Calibration, noise_warning, vouches_for
from pixsift.core.change_signals import Mask
from pixsift.core.collection import Collection, ExpiryPolicy
from pixsift.core.sources import DEFAULT_KEY_PATTERN, SourceRule
from pixsift.errors import Remedy, RequestError
from pixsift.operations.embedder import ModelChoice, load
from pixsift.operations.redecide import check_epsilon, check_keep_best, preset_rule, with_mask
from pixsift.ports import EmbeddingSpace

DEFAULT_COLLECTION: Final = "default"
"""The default collection of a first user."""
SIDECARS: Final = ("*.json", "*.yaml", "*.txt", "*.csv", "*.xml")

SecondLook = Mapping[str, Any] | Literal["as calibrated", "off"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Embedding space, epsilon and second look of a new collection, and where they come from."""

    space: EmbeddingSpace
    epsilon: float
    second_look: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    """The summary of the calibration behind both; None if there is none."""
    warning: str | None
    """Where epsilon is too near to the embedder's own noise."""


def threshold(
    model: ModelChoice,
    *,
    epsilon: float | None = None,
    second_look: SecondLook = "as calibrated",
    calibration: Calibration | None = None,
    preset: str = presets.DEFAULT,
    mask: Mask = (),
) -> Threshold:
    """The rule for near-duplicates of ``model``.

    epsilon: None for the preset's. calibration: None for the one that ships with pixsift. preset:
    what the cameras do; counts where ``second_look`` is as calibrated. mask: boxes in shares of the
    frame where changes do not count. Raises RequestError for an epsilon that is not a cosine
    distance, or a calibration measured with other weights or another recipe.
    """
    space = load(model).space
    if calibration is not None:
        check_same_model(calibration, space)
    found = calibration or default_calibration(space)
    summary = found.summary() if found.calibrated else None
    reach = found.epsilon
    look: Mapping[str, Any] | None
    match second_look:
        case "as calibrated":
            reach, look = preset_rule(
                preset, found.epsilon, found.second_look, calibrated=found.calibrated
            )
        case "off":
            look = None
        case rule:
            look = rule
    wanted = reach if epsilon is None else epsilon
    check_epsilon(wanted)
    look = with_mask(look, mask)
    vouched = summary if vouches_for(summary, wanted, look) else None
    return Threshold(space, wanted, look, vouched, noise_warning(wanted, found.noise))


def create(
    database: Database,
    name: str,
    chosen: Threshold,
    *,
    sources: Sequence[SourceRule],
    key_pattern: str | None = DEFAULT_KEY_PATTERN,
    quality_policy: Mapping[str, Any] | None = None,
    expiry_policy: ExpiryPolicy = "remember",
    keep_best: float | None = None,
    actor: str = "pixsift",
) -> Collection:
    """Create a collection: one dedup scope over the objects of its sources.

    keep_best: see ``pixsift.core.keep_best``; None: off. Raises RequestError for a malformed name
    or pattern, ConflictError for a taken name.
    """
    check_keep_best(keep_best)
    registry = Collections(database, actor=actor)
    registry.ensure_space(chosen.space)
    return registry.create_collection(
        name,
        sources=sources,
        space_id=chosen.space.space_id,
        epsilon=chosen.epsilon,
        second_look=chosen.second_look,
        key_pattern=key_pattern,
        quality_policy=quality_policy or {},
        expiry_policy=expiry_policy,
        calibration=chosen.calibration,
        keep_best=keep_best,
    )


def ensure_default(
    database: Database,
    bucket: str,
    model: ModelChoice,
    *,
    quality_policy: Mapping[str, Any] | None = None,
    actor: str = "pixsift",
) -> Collection:
    """The collection ``default`` over the whole of ``bucket``; created if it is missing."""
    known = [c for c in Collections(database).collections() if c.name == DEFAULT_COLLECTION]
    if known:
        return known[0]
    return create(
        database, DEFAULT_COLLECTION, threshold(model),
        sources=[SourceRule(bucket, exclude=SIDECARS)], quality_policy=quality_policy,
        actor=actor,
    )  # fmt: skip


def change(
    database: Database,
    name: str,
    *,
    sources: Sequence[SourceRule] | None = None,
    key_pattern: str | None = None,
    quality_policy: Mapping[str, Any] | None = None,
    expiry_policy: ExpiryPolicy | None = None,
) -> CollectionSettings:
    """Change the settings for later arrivals; None leaves one as it is, "" means no key pattern."""
    Overview(database).change(
        Collections(database).collection(name),
        sources=sources, key_pattern=key_pattern, quality_policy=quality_policy,
        expiry_policy=expiry_policy,
    )  # fmt: skip
    return settings(database, name)


def settings(database: Database, name: str) -> CollectionSettings:
    """All settings that decide about an object there."""
    collection = Collections(database).collection(name)
    return CollectionSettings(**Overview(database).settings(collection))


def show(database: Database, name: str) -> CollectionDetails:
    """A collection's settings and counts."""
    collection, overview = Collections(database).collection(name), Overview(database)
    return CollectionDetails(
        **overview.settings(collection), counts=Counts(**overview.counts(collection))
    )


def list_collections(database: Database) -> list[CollectionLine]:
    """Every collection with its outcomes."""
    overview = Overview(database)
    return [
        CollectionLine(
            name=c.name, epsilon=c.epsilon, generation=c.generation, seq=c.seq,
            **overview.counts(c)["outcomes"],
        )
        for c in Collections(database).collections()
    ]  # fmt: skip


def list_sources(database: Database) -> list[str]:
    """The buckets that collections judge, each once."""
    rules = (rule for c in Collections(database).collections() for rule in c.sources)
    return sorted({rule.bucket for rule in rules})


def check_same_model(calibration: Calibration, space: EmbeddingSpace) -> None:
    """Raises RequestError for a calibration of other weights or another recipe."""
    if (calibration.weights_sha256, calibration.recipe_id) != (
        space.weights_sha256, space.recipe_id,
    ):  # fmt: skip
        raise RequestError(
            "the calibration was measured with other weights or another recipe "
            f"({calibration.model}, {calibration.recipe_id})",
            code="other_calibration", remedy=Remedy("calibrate"),
        )  # fmt: skip
