"""``pixsift rule``: rulings of people about images; they override every rule until taken back."""

import getpass
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

import typer

from pixsift.answers.decisions import RulingDone, RulingLine
from pixsift.core.files import shown
from pixsift.errors import RequestError
from pixsift.operations import rule as operation
from pixsift.operations.paths import collection_with, object_named
from pixsift.operations.retrieve import only_collection
from pixsift.words import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit

app = typer.Typer(
    no_args_is_help=True, help="Overrule decisions: keep, same, not the same, useless."
)

Images = Annotated[
    list[str],
    typer.Argument(help="s3://bucket/key (with ?versionId=...), or a file; several are a batch."),
]
Image = Annotated[str, typer.Argument(help="s3://bucket/key (with ?versionId=...), or a file.")]
Other = Annotated[str, typer.Argument(help="The other image: s3://bucket/key, or a file.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for those who read it later.")]
Who = Annotated[
    str | None, typer.Option("--who", help="Who says it; default: the user of this machine.")
]
Collection = Annotated[
    str | None,
    typer.Option("--collection", help="Collection; default: 'default', or the only one."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="rule")


@app.command()
def choose(
    images: Images, why: Why, who: Who = None, collection: Collection = None, *,
    dry_run: DryRun = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Let an image represent its group: it is kept, and what is near becomes its duplicate."""
    _say(
        "choose", images, None, why=why, who=who, collection=collection, dry_run=dry_run,
        as_json=as_json,
    )  # fmt: skip


@app.command("also-keep")
def also_keep(
    images: Images, why: Why, who: Who = None, collection: Collection = None, *,
    dry_run: DryRun = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Keep an image although a representative is near."""
    _say(
        "also_keep", images, None, why=why, who=who, collection=collection, dry_run=dry_run,
        as_json=as_json,
    )  # fmt: skip


@app.command()
def same(
    image: Image, other: Other, why: Why, who: Who = None, collection: Collection = None, *,
    dry_run: DryRun = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Make an image a duplicate of another one, at any distance."""
    _say(
        "same", [image], other, why=why, who=who, collection=collection, dry_run=dry_run,
        as_json=as_json,
    )  # fmt: skip


@app.command("not-same")
def not_same(
    image: Image, other: Other, why: Why, who: Who = None, collection: Collection = None, *,
    dry_run: DryRun = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Say that two images differ: neither ever represents the other."""
    _say(
        "not_same", [image], other, why=why, who=who, collection=collection, dry_run=dry_run,
        as_json=as_json,
    )  # fmt: skip


@app.command()
def useless(
    images: Images, why: Why, who: Who = None, collection: Collection = None, *,
    dry_run: DryRun = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Reject an image, whatever the quality policy says."""
    _say(
        "useless", images, None, why=why, who=who, collection=collection, dry_run=dry_run,
        as_json=as_json,
    )  # fmt: skip


@app.command()
def best(
    by: Annotated[
        str,
        typer.Argument(
            help="largest, newest, oldest, or 'most METRIC' or 'least METRIC', as 'most sharpness'."
        ),
    ],
    why: Why, who: Who = None, collection: Collection = None, *,
    prefix: Annotated[str, typer.Option(help="Only keys with this prefix.")] = "",
    sample: Annotated[int, typer.Option(min=0, max=1000, help="How many changes to show.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the rulings; without it, only show them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Choose the best image of every group by a rule, in one batch."""
    with wiring.database(collection) as database:
        done = operation.rule_best(
            database, only_collection(database, collection).name, by,
            why=why, who=who or _user(), prefix=prefix, dry_run=not apply, sample=sample,
            seed=seed, actor=wiring.ACTOR, obligations=wiring.obligations(database),
        )  # fmt: skip
    emit(done, as_json, _lines(done, "--apply makes them"))


@app.command()
def undo(
    ruling: Annotated[
        list[str] | None, typer.Argument(help="Ids of rulings: pixsift rule list.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="All rulings that were made together.")
    ] = None,
    collection: Collection = None,
    *, dry_run: DryRun = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Take rulings back, or a whole batch; what they touched is decided again."""
    if bool(ruling) == (batch is not None):
        raise RequestError("name rulings by their ids, or a batch with --batch")
    with wiring.database(collection) as database:
        done = operation.undo_rulings(
            database, only_collection(database, collection).name,
            ruling_ids=[_uuid(text) for text in ruling or []],
            batch=None if batch is None else _uuid(batch), dry_run=dry_run, actor=wiring.ACTOR,
            obligations=wiring.obligations(database),
        )  # fmt: skip
    emit(done, as_json, _lines(done, "nothing was taken back", "taken back"))


@app.command("list")
def list_(
    image: Annotated[
        str | None, typer.Argument(help="s3://bucket/key: only rulings about this image.")
    ] = None,
    collection: Collection = None,
    *,
    past: Annotated[
        bool, typer.Option("--past", help="Also show rulings that were taken back.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Maximum number.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List rulings, the oldest first: who said what of which image, and why."""
    with wiring.database(collection, image) as database:
        uri = None if image is None else object_named(database, image)
        name = collection or (collection_with(database, uri) if uri else None)
        found = operation.list_rulings(
            database, only_collection(database, name).name, uri=uri, in_force=not past, limit=limit,
        )  # fmt: skip
    lines = [line for row in found.rulings for line in _ruling_lines(row)]
    emit(found, as_json, lines or "no rulings")


def _ruling_lines(row: RulingLine) -> Iterator[str]:
    yield f"{row.ruling_id}  {row.kind:<9} {shown(row.uri)}" + (
        f"  {shown(row.other)}" if row.other else ""
    )
    batch = f" (batch {row.batch})" if row.batch else ""
    ended = "" if row.to_seq is None else f", taken back at seq {row.to_seq}"
    yield f"  {row.who}, {row.said_at:%Y-%m-%d %H:%M}: {row.why}{batch}{ended}"


def _say(
    kind: str, images: list[str], other: str | None, *, why: str, who: str | None,
    collection: str | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    with wiring.database(collection, *images, other) as database:
        uris = [object_named(database, image) for image in images]
        name = collection or (collection_with(database, uris[0]) if uris else None)
        done = operation.rule(
            database, only_collection(database, name).name, kind, uris,
            other=None if other is None else object_named(database, other),
            why=why, who=who or _user(), dry_run=dry_run, actor=wiring.ACTOR,
            obligations=wiring.obligations(database),
        )  # fmt: skip
    emit(done, as_json, _lines(done, "nothing was changed"))


def _lines(done: RulingDone, if_dry: str, verb: str = "made") -> Iterator[str]:
    groups = "" if done.groups is None else f" in {done.groups} groups"
    about = f"{done.rulings} rulings{groups}"
    yield f"{about} would be {verb}: {if_dry}" if done.dry_run else f"{about} {verb}"
    for kind, count in done.changed.items():
        yield f"  {count} images {kind}"
    for change in done.sample:
        of = f" of {shown(change.representative)}" if change.representative else ""
        why = f"{change.outcome} ({in_words(change.reason)})"
        yield f"    {change.was} -> {why}{of}: {shown(change.uri)}"
    if done.rulings and not done.dry_run and verb == "made":
        how = f"--batch {done.batch}" if done.batch else done.ruling_ids[0]
        yield f"To take back: pixsift rule undo {how}"


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise RequestError(f"{text!r} is not the id of a ruling: see pixsift rule list") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise RequestError("name who says it with --who") from error
