"""The collection of the local loop: what a newcomer gets without choosing anything."""

from collections.abc import Mapping
from typing import Any

from pixsift.adapters.ledger import Ledger
from pixsift.adapters.models import load_embedder
from pixsift.adapters.postgres import Database
from pixsift.config import ModelSettings
from pixsift.core.collection import Collection
from pixsift.core.sources import DEFAULT_KEY_PATTERN, SourceRule

DEFAULT_COLLECTION = "default"
DEFAULT_EPSILON = 0.10
"""Cosine distance. Of a camera driving past, EfficientNet-Lite0 puts neighboring frames 0.02 to
0.06 apart and different scenes beyond 0.5 (the demo's photographs). Uncalibrated: your own images
deserve ``pixsift calibrate``."""
SIDECARS = ("*.json", "*.yaml", "*.txt", "*.csv", "*.xml")


def ensure_default_collection(
    database_url: str, bucket: str, *, quality_policy: Mapping[str, Any] | None = None
) -> Collection:
    """The collection ``default`` over the whole of ``bucket``, made when it is missing."""
    settings = ModelSettings()
    with Database(database_url) as database:
        ledger = Ledger(database)
        known = [c for c in ledger.collections() if c.name == DEFAULT_COLLECTION]
        if known:
            return known[0]
        space = load_embedder(
            settings.model, revision=settings.model_revision, device=settings.device
        ).space
        ledger.ensure_space(space)
        return ledger.create_collection(
            DEFAULT_COLLECTION,
            sources=[SourceRule(bucket, exclude=SIDECARS)],
            space_id=space.space_id,
            epsilon=DEFAULT_EPSILON,
            key_pattern=DEFAULT_KEY_PATTERN,
            quality_policy=quality_policy,
        )
