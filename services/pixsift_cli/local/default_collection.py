"""The collection of the local loop: what a newcomer gets without choosing anything."""

from collections.abc import Mapping
from typing import Any

from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.config import ModelSettings
from pixsift.core.collection import Collection
from pixsift.core.sources import DEFAULT_KEY_PATTERN, SourceRule

DEFAULT_COLLECTION = "default"
SIDECARS = ("*.json", "*.yaml", "*.txt", "*.csv", "*.xml")


def ensure_default_collection(
    database_url: str, bucket: str, *, quality_policy: Mapping[str, Any] | None = None
) -> Collection:
    """The collection ``default`` over the whole of ``bucket``, made when it is missing."""
    settings = ModelSettings()
    with Database(database_url) as database:
        ledger = Ledger(database, actor="cli")
        known = [c for c in ledger.collections() if c.name == DEFAULT_COLLECTION]
        if known:
            return known[0]
        space = load_embedder(
            settings.model, revision=settings.model_revision, device=settings.device
        ).space
        ledger.ensure_space(space)
        calibration = default_calibration(space)
        return ledger.create_collection(
            DEFAULT_COLLECTION,
            sources=[SourceRule(bucket, exclude=SIDECARS)],
            space_id=space.space_id,
            epsilon=calibration.epsilon,
            second_look=calibration.second_look,
            calibration=calibration.summary() if calibration.calibrated else None,
            key_pattern=DEFAULT_KEY_PATTERN,
            quality_policy=quality_policy,
        )
