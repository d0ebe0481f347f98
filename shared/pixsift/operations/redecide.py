"""Another rule for a collection: what it would change, the change itself, and the way back."""

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generations import Generations, ReportCount, Switched, WhatIf
from pixsift.adapters.postgres.database import Database
from pixsift.core.calibration import noise_warning
from pixsift.core.collection import Collection
from pixsift.errors import RequestError


def what_if(
    database: Database, name: str, *, epsilon: float, second_look: bool, examples: int
) -> WhatIf:
    """What ``epsilon`` would change now; nothing is changed, nothing is embedded."""
    collection = _collection(database, name, epsilon)
    return Generations(database).what_if(
        collection, epsilon=epsilon, second_look=second_look, examples=examples
    )


def redecide(
    database: Database, name: str, *,
    epsilon: float, second_look: bool, take_over: bool, progress: ReportCount,
    actor: str = "pixsift",
) -> Switched:  # fmt: skip
    """Decide everything again under ``epsilon`` and switch to the result.

    second_look: False lets the embedding alone decide. Raises ConflictError while another
    generation is being built, unless ``take_over``.
    """
    collection = _collection(database, name, epsilon)
    return Generations(database, actor=actor).redecide(
        collection, epsilon=epsilon, second_look=second_look, take_over=take_over,
        progress=progress,
    )  # fmt: skip


def undo(
    database: Database, name: str, *,
    take_over: bool, progress: ReportCount, actor: str = "pixsift",
) -> Switched:  # fmt: skip
    """Go back to the previous generation. Raises ConflictError when there is none."""
    return Generations(database, actor=actor).undo(
        Collections(database).collection(name), take_over=take_over, progress=progress
    )


def warning(database: Database, name: str, epsilon: float) -> str | None:
    """What to say before an epsilon that is too near to the embedder's own noise is used."""
    collection = _collection(database, name, epsilon)
    return noise_warning(epsilon, (collection.calibration or {}).get("noise"))


def _collection(database: Database, name: str, epsilon: float) -> Collection:
    check_epsilon(epsilon)
    return Collections(database).collection(name)


def check_epsilon(epsilon: float) -> None:
    """Raises RequestError for what is no cosine distance."""
    if not 0 <= epsilon <= 2:
        raise RequestError(
            f"epsilon {epsilon:g}: a cosine distance is between 0 and 2", code="epsilon_range"
        )
