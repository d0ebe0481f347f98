"""Another rule for a collection: what it would change, the change, and the undo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generation_build import ReportCount
from pixsift.adapters.ledger.generations import Generations, SecondLook
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import RuleComparison, SwitchedGeneration
from pixsift.core import presets
from pixsift.core.calibration import noise_warning
from pixsift.core.change_signals import Mask
from pixsift.core.collection import Collection
from pixsift.core.second_look import LookRule
from pixsift.errors import RequestError


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted changes of a rule; the rest stays as it is."""

    epsilon: float | None = None
    preset: str | None = None
    change_limit: float = 1.0
    """Factor on what counts as a change: below 1 keeps more, above 1 less."""
    mask: Mask = ()
    second_look: bool = True
    """False: the embedding alone decides."""
    keep_best: float | bool = True
    """The margin of keep-best; False: off; True: as it is."""


def rule_of(collection: Collection, wanted: Wanted) -> tuple[float, SecondLook]:
    """Epsilon and second look of the wanted rule. Raises RequestError if nothing is asked."""
    if wanted == Wanted():
        raise RequestError(
            "another rule needs an epsilon, a preset, a change limit, a mask, no second look, or "
            "another keep-best",
            code="no_rule",
        )
    if not isinstance(wanted.keep_best, bool):
        check_keep_best(wanted.keep_best)
    calibration = collection.calibration
    epsilon, look = collection.epsilon, collection.second_look
    if wanted.preset is not None:
        narrow = calibration["epsilon"] if calibration else _narrow(epsilon, look)
        epsilon, look = preset_rule(
            wanted.preset, narrow, look or LookRule.without_change().to_json(),
            calibrated=calibration is not None,
        )  # fmt: skip
    epsilon = epsilon if wanted.epsilon is None else wanted.epsilon
    check_epsilon(epsilon)
    if not wanted.second_look:
        return epsilon, False
    if wanted.change_limit != 1.0:
        rule = None if look is None else LookRule.from_json(look)
        if rule is None or rule.limits is None:
            raise RequestError(
                "a change limit needs a rule that tests for change: ask for the preset "
                f"{presets.DEFAULT} as well",
                code="no_change_test",
            )
        look = presets.scaled(rule, wanted.change_limit).to_json()
    look = with_mask(look, wanted.mask)
    return epsilon, True if look is None else dict(look)


def preset_rule(
    name: str, narrow: float, second_look: Mapping[str, Any] | None, *, calibrated: bool
) -> tuple[float, Mapping[str, Any] | None]:
    """Epsilon and second look of a preset. Raises RequestError for an unknown name."""
    try:
        return presets.apply(name, narrow=narrow, second_look=second_look, calibrated=calibrated)
    except ValueError as error:
        raise RequestError(str(error), code="unknown_preset") from error


def with_mask(second_look: Mapping[str, Any] | None, mask: Mask) -> dict[str, Any] | None:
    """``second_look`` with ``mask``; as it is where there is none."""
    if second_look is None and mask:
        raise RequestError(
            "a mask needs a second look: the embedding alone sees no places", code="mask_alone"
        )
    if second_look is None:
        return None
    return dict(second_look) | ({"mask": [list(box) for box in mask]} if mask else {})


def _narrow(epsilon: float, second_look: Mapping[str, Any] | None) -> float:
    """The epsilon that holds without the test for change."""
    return epsilon if second_look is None else min(epsilon, LookRule.from_json(second_look).narrow)


def what_if(database: Database, name: str, wanted: Wanted, *, examples: int) -> RuleComparison:
    """What another rule would change now; nothing is changed, nothing is embedded."""
    collection = Collections(database).collection(name)
    epsilon, second_look = rule_of(collection, wanted)
    return Generations(database).what_if(
        collection,
        epsilon=epsilon,
        second_look=second_look,
        keep_best=wanted.keep_best,
        examples=examples,
    )


def redecide(
    database: Database, name: str, wanted: Wanted, *,
    take_over: bool, progress: ReportCount, actor: str = "pixsift",
) -> SwitchedGeneration:  # fmt: skip
    """Decide everything again under another rule and switch to the result.

    Raises ConflictError while another generation is being built, unless ``take_over``.
    """
    collection = Collections(database).collection(name)
    epsilon, second_look = rule_of(collection, wanted)
    return Generations(database, actor=actor).redecide(
        collection, epsilon=epsilon, second_look=second_look, keep_best=wanted.keep_best,
        take_over=take_over, progress=progress,
    )  # fmt: skip


def undo(
    database: Database, name: str, *,
    take_over: bool, progress: ReportCount, actor: str = "pixsift",
) -> SwitchedGeneration:  # fmt: skip
    """Go back to the previous generation. Raises ConflictError when there is none."""
    return Generations(database, actor=actor).undo(
        Collections(database).collection(name), take_over=take_over, progress=progress
    )


def warning(database: Database, name: str, wanted: Wanted) -> str | None:
    """The warning for an epsilon that is too near to the embedder's own noise."""
    collection = Collections(database).collection(name)
    epsilon, _ = rule_of(collection, wanted)
    return noise_warning(epsilon, (collection.calibration or {}).get("noise"))


def check_epsilon(epsilon: float) -> None:
    """Raises RequestError if epsilon is not a cosine distance."""
    if not 0 <= epsilon <= 2:
        raise RequestError(
            f"epsilon {epsilon:g} must be between 0 and 2 (cosine distance)", code="epsilon_range"
        )


def check_keep_best(margin: float | None) -> None:
    """Raises RequestError for a margin that no image could be ahead by."""
    if margin is not None and not 0 < margin <= 10:
        raise RequestError(
            f"keep-best {margin:g}: the margin must be above 0 and at most 10",
            code="keep_best_range",
        )
