"""``pixsift collection create|set|list|show``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pixsift.answers.collections import CollectionLine, CollectionSettings
from pixsift.core import presets
from pixsift.core.calibration import Calibration, vouches_for
from pixsift.core.change_signals import Mask
from pixsift.core.collection import ExpiryPolicy
from pixsift.core.outcomes import OUTCOMES
from pixsift.core.quality import QualityPolicy
from pixsift.core.second_look import LookRule, read_mask
from pixsift.core.sources import DEFAULT_KEY_PATTERN, SourceRule, compile_key_pattern
from pixsift.errors import RequestError
from pixsift.operations import collections as operation
from pixsift.operations.doctor import check_versioning
from pixsift.operations.retrieve import only_collection
from pixsift.remedies import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit, emit_json, s3_uri, warn
from pixsift_cli.terminal import console, say

Name = Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)]
OptionalName = Annotated[
    str | None, typer.Argument(help="Collection; default: 'default', or the only one.")
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="s3://bucket/prefix to judge; may be repeated."),
]
Includes = Annotated[
    list[str] | None, typer.Option("--include", help="Glob of keys to include; default: all.")
]
Excludes = Annotated[
    list[str] | None, typer.Option("--exclude", help="Glob of keys to ignore, e.g. '*.json'.")
]
KeyPattern = Annotated[
    str | None,
    typer.Option(
        help="Regular expression with named groups that reads attributes from the key; "
        "'' for none.",
        show_default="robot/camera/timestamp.ext",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(help='JSON or a file: {"blurred": "reject"}; actions off, flag, reject.'),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        help="left,top,right,bottom in shares of the frame, where a change is none: a burnt-in "
        "stamp; may be repeated.",
    ),
]
Expiry = Annotated[
    str | None,
    typer.Option(
        help="When a lifecycle rule removes an image: 'remember' (it keeps filtering what comes "
        "later) or 'redecide' (its duplicates are judged again)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        no_args_is_help=True, help="Create, change and list collections: what is judged, and how."
    )
    group.command()(create)
    group.command("set")(change)
    group.command("list")(list_all)
    group.command()(show)
    app.add_typer(group, name="collection")


def create(
    name: Name,
    *,
    source: Sources = None,
    include: Includes = None,
    exclude: Excludes = None,
    key_pattern: KeyPattern = DEFAULT_KEY_PATTERN,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Cosine distance of near-duplicates; default: the model's calibration."),
    ] = None,
    second_look: Annotated[
        str | None,
        typer.Option(
            help="JSON or a JSON file with a second-look rule; 'off': use the embedding alone."
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="What the cameras do: static_camera, moving_camera or photos.")
    ] = presets.DEFAULT,
    mask: Masks = None,
    quality_policy: Policy = None,
    expiry: Expiry = "remember",
    keep_best: Annotated[
        float | None,
        typer.Option(
            help="Let an image that is sharper by this margin (0.1, say) replace the "
            "representative that it is near to; default: the first stays."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File that 'pixsift calibrate' wrote.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model of its embedding space; default: PIXSIFT_MODEL.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a collection: what is judged together, and how.

    Near-duplicates are found among the objects of its sources.
    """
    if not source:
        raise RequestError("a collection needs a source: --source s3://bucket/prefix")
    rules = _rules(source, include, exclude)
    chosen = operation.threshold(
        wiring.model(model),
        epsilon=epsilon,
        second_look=_second_look(second_look),
        calibration=None if calibration is None else read_calibration(calibration),
        preset=preset,
        mask=boxes(mask),
    )
    warn(chosen.warning)
    with wiring.database() as database:
        operation.create(
            database,
            name,
            chosen,
            sources=rules,
            key_pattern=_pattern(key_pattern),
            quality_policy=_quality(quality_policy),
            expiry_policy=_expiry(expiry),
            keep_best=keep_best,
            actor=wiring.ACTOR,
        )
        facts = operation.settings(database, name)
    for check in check_versioning((rule.bucket for rule in rules), wiring.uploads):
        if check.remedy is not None:
            warn(f"{check.name}: {check.detail} ({in_words(check.remedy)})")
    lines = [f"created collection {name}", *_settings_text(facts), *_what_was_before(rules)]
    emit(facts, as_json, lines)


def _what_was_before(rules: Sequence[SourceRule]) -> list[str]:
    """Warnings about a new collection."""
    return [
        "Consumers see it within ten seconds. For objects that are already there, run:",
        *(f"  pixsift backfill s3://{rule.bucket}/{rule.prefix}" for rule in rules),
    ]


def change(
    name: OptionalName = None,
    *,
    source: Sources = None,
    include: Includes = None,
    exclude: Excludes = None,
    key_pattern: KeyPattern = None,
    quality_policy: Policy = None,
    expiry: Expiry = None,
    as_json: JsonOption = False,
) -> None:
    """Change how later arrivals are judged.

    The epsilon changes by 'pixsift redecide'.
    """
    if (include or exclude) and not source:
        raise RequestError("--include and --exclude apply to a --source: add --source")
    with wiring.database() as database:
        facts = operation.change(
            database,
            only_collection(database, name).name,
            sources=_rules(source, include, exclude) if source else None,
            key_pattern=None if key_pattern is None else _pattern(key_pattern) or "",
            quality_policy=_quality(quality_policy),
            expiry_policy=None if expiry is None else _expiry(expiry),
        )
    emit(facts, as_json, _settings_text(facts))


def list_all(as_json: JsonOption = False) -> None:
    """List the collections with their counts."""
    with wiring.database() as database:
        facts = operation.list_collections(database)
    if as_json:
        emit_json(facts)
    elif not facts:
        say("no collections yet: pixsift collection create NAME --source s3://bucket/")
    else:
        console().print(_table(facts))


def show(name: OptionalName = None, as_json: JsonOption = False) -> None:
    """Show a collection's settings, rules and counts."""
    with wiring.database() as database:
        facts = operation.show(database, only_collection(database, name).name)
    outcomes = facts.counts.outcomes
    listed = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items() if n) or "none"
    emit(facts, as_json, [*_settings_text(facts), f"outcomes        {listed}"])


def boxes(masks: Sequence[str] | None) -> Mask:
    """The boxes of ``--mask``."""
    try:
        return read_mask([[float(edge) for edge in text.split(",")] for text in masks or ()])
    except ValueError as error:
        raise RequestError(f"--mask: {error}") from error


def read_calibration(path: Path) -> Calibration:
    """Of ``--calibration``. Raises RequestError for another file."""
    try:
        return Calibration.from_json(_json(str(path), "--calibration"))
    except ValueError as error:
        raise RequestError(
            f"--calibration {path}: {error}; was it written by 'pixsift calibrate'?"
        ) from error


def _second_look(text: str | None) -> operation.SecondLook:
    if text is None:
        return "as calibrated"
    if text == "off":
        return "off"
    rule = _json(text, "--second-look")
    try:
        return LookRule.from_json(rule).to_json()
    except ValueError as error:
        raise RequestError(f"--second-look: {error}") from error


def _rules(
    sources: Sequence[str], includes: Sequence[str] | None, excludes: Sequence[str] | None
) -> list[SourceRule]:
    uris = [s3_uri(source) for source in sources]
    return [
        SourceRule(uri.bucket, uri.key, tuple(includes or ()), tuple(excludes or ()))
        for uri in uris
    ]


def _pattern(text: str | None) -> str | None:
    try:
        compile_key_pattern(text)
    except ValueError as error:
        raise RequestError(f"--key-pattern {text!r} {error}") from error
    return text or None


def _quality(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    policy = _json(text, "--quality-policy")
    try:
        QualityPolicy.from_json(policy)
    except ValueError as error:
        raise RequestError(f"--quality-policy: {error}") from error
    return policy


def _expiry(text: str | None) -> ExpiryPolicy:
    match text:
        case "remember" | "redecide":
            return text
        case _:
            raise RequestError(f"--expiry {text!r}: use 'remember' or 'redecide'")


def _json(text: str, option: str) -> dict[str, Any]:
    """A JSON object, given as such or as the name of a file that holds one."""
    try:
        value = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{option} {text[:200]!r} is neither JSON nor a JSON file: {error}"
        ) from error
    if not isinstance(value, dict):
        raise RequestError(f"{option}: expected a JSON object, not {type(value).__name__}")
    return value


def _table(collections: Sequence[CollectionLine]) -> Table:
    table = Table("collection", "epsilon", "generation", "seq", *OUTCOMES)
    for facts in collections:
        table.add_row(
            facts.name, f"{facts.epsilon:g}", str(facts.generation), str(facts.seq),
            *(str(getattr(facts, outcome)) for outcome in OUTCOMES),
        )  # fmt: skip
    return table


def _settings_text(facts: CollectionSettings) -> list[str]:
    sources = [
        f"s3://{s['bucket']}/{s['prefix']}"
        + (f" include {' '.join(s['include'])}" if s["include"] else "")
        + (f" exclude {' '.join(s['exclude'])}" if s["exclude"] else "")
        for s in facts.sources
    ]
    space = facts.space
    look = "with a second look" if facts.second_look else "embedding alone"
    preset = presets.preset_of(facts.epsilon, facts.second_look)
    lines = {
        "collection": facts.name,
        "sources": "; ".join(sources),
        "key pattern": facts.key_pattern or "none",
        "model": f"{space.name} ({space.recipe_id}, {space.dimension} dimensions, "
        f"space {space.space_id})",
        "near-duplicate": f"cosine distance <= {facts.epsilon:g}, {look}, {_origin(facts)}",
        "preset": (
            f"{preset}: {presets.PRESETS[preset].description}" if preset else "none, its own rule"
        ),
        "keep-best": f"an image ahead by {facts.keep_best:g} takes its representative's place"
        if facts.keep_best else "off: the first image of a group represents it",
        "quality policy": json.dumps(facts.quality_policy) if facts.quality_policy
        else "the defaults",
        "on expiry": facts.expiry_policy,
        "generation": f"{facts.generation} at seq {facts.seq}",
    }  # fmt: skip
    return [f"{label:<15} {value}" for label, value in lines.items()]


def _origin(facts: CollectionSettings) -> str:
    """Whether the present rule is the calibrated one; after a redecide it may not be."""
    calibration = facts.calibration
    if vouches_for(calibration, facts.epsilon, facts.second_look):
        return "calibrated"
    if calibration is None:
        return "not calibrated"
    look = "with a second look" if calibration["second_look"] else "embedding alone"
    return f"not calibrated (its calibration says {calibration['epsilon']:g}, {look})"
