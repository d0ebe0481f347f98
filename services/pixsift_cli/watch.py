"""``pixsift watch``: standing queries over what arrives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from pixsift.adapters.postgres.database import Database
from pixsift.api import Example
from pixsift.api_watches import Watch, WatchAsk, WatchHit, WatchPast, WatchTrial
from pixsift.errors import RequestError
from pixsift.messages import Where2
from pixsift.operations import watch as operation
from pixsift.operations.examples import Uploads
from pixsift.operations.find import uploads_of_files
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.paths import collection_name
from pixsift.operations.retrieve import only_collection
from pixsift.pages.gallery import gallery
from pixsift.pages.pictures import Picture
from pixsift_cli import wiring
from pixsift_cli.choosing.options import attribute_conditions
from pixsift_cli.common import JsonOption, check_writable, emit, s3_uri, short_uris, write_text
from pixsift_cli.terminal import status_line

app = typer.Typer(no_args_is_help=True, help="Watch for images like some of yours as they arrive.")

Collection = Annotated[
    str | None, typer.Option(help="Collection; default: 'default', or the only one.")
]
Which = Annotated[str, typer.Argument(metavar="WATCH", help="Its name or id.")]


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="watch")


@app.command()
def begin(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    max_distance: Annotated[
        float,
        typer.Option(min=0, max=2, help="Images up to this cosine distance match; see --try."),
    ],
    image: Annotated[
        list[Path] | None, typer.Option(help="An image file as an example; may be repeated.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(help="s3://bucket/key of an image in the ledger; may be repeated."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix: the kept images below it.")
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(help="s3://bucket/key of a counterexample; may be repeated."),
    ] = None,
    way: Annotated[
        str,
        typer.Option(
            help="nearest: near any example; modes: near each group of examples that look alike; "
            "mean: near their mean; auto: modes from three examples on."
        ),
    ] = "auto",
    where: Annotated[
        list[str] | None, typer.Option(help="attribute=value; may be repeated.")
    ] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Also match images that are duplicates.")
    ] = False,
    announce: Annotated[
        bool, typer.Option("--announce", help="Also announce each hit on the event bus.")
    ] = False,
    past: Annotated[
        bool, typer.Option("--past", help="Also match what is in the collection already.")
    ] = False,
    only_try: Annotated[
        bool,
        typer.Option("--try", help="Only show what it would match among the images kept now."),
    ] = False,
    collection: Collection = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a watch: images that arrive from now on are compared with its examples."""
    examples = [Example(uri=uri) for uri in like or [] if s3_uri(uri)]
    against = [Example(uri=uri) for uri in unlike or [] if s3_uri(uri)]
    files = [Example(upload=str(path)) for path in image or []]
    if not (examples or files or prefix):
        raise RequestError("nothing to watch for: give --image FILE, --like s3://... or --prefix")
    with wiring.database(collection) as database:
        ask = _asked({
            "name": name, "max_distance": max_distance, "examples": [*examples, *files],
            "folder": prefix, "counterexamples": against, "way": way, "duplicates": duplicates,
            "where": Where2(attributes=attribute_conditions(where), flagged="include"),
            "destination": "events" if announce else "ledger",
            "collection": collection_name(database, collection) if collection else None,
        })  # fmt: skip
        uploads = Uploads()
        if image:
            mine = only_collection(database, ask.collection)
            uploads = uploads_of_files(image, mine, model=wiring.model())
        if only_try:
            found = operation.attempt(database, ask, uploads=uploads)
            emit(found, as_json, _tried(found, max_distance))
            return
        begun = operation.begin(database, ask, actor=wiring.ACTOR, uploads=uploads)
        if past:
            _run_past(database, begun)
            begun = operation.show(database, begun.watch_id)
    emit(begun, as_json, _line(begun))


@app.command("list")
def list_(
    *,
    collection: Collection = None,
    ended: Annotated[bool, typer.Option("--ended", help="Those that have ended as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List watches, the newest first."""
    with wiring.database(collection) as database:
        name = collection_name(database, collection) if collection else None
        found = operation.list_watches(database, collection=name, ended=ended)
    emit(found, as_json, [_line(each) for each in found.watches] or ["no watches"])


@app.command()
def hits(
    watch: Which,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of images.")] = 20,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    collection: Collection = None,
    as_json: JsonOption = False,
) -> None:
    """List what a watch matched, the newest first."""
    check_writable(html)
    with wiring.database(collection) as database:
        known = operation.named(database, watch)
        found = operation.hits(database, known.watch_id, before=None, limit=limit)
        if html is not None:
            shown = uris_and_thumbnails(
                database, wiring.objects(), wiring.derived_bucket(),
                [hit.object_id for hit in found.hits],
            )  # fmt: skip
            pictures = [
                Picture.inline(shown[hit.object_id][1], f"distance {hit.distance:.4f}",
                               short_uris([hit.uri])[0], f"{hit.at:%Y-%m-%d %H:%M} {hit.outcome}")
                for hit in found.hits
            ]  # fmt: skip
            write_text(html, gallery(
                f"{len(pictures)} of {known.hits} images that watch {known.name} matched",
                ["the newest first; cosine distance to the nearest mode"], pictures,
            ))  # fmt: skip
    lines = _hit_lines(found.hits) or ["nothing matched yet"]
    emit(found, as_json, lines + ([f"page: {html}"] if html is not None else []))


@app.command()
def past(watch: Which, *, collection: Collection = None, as_json: JsonOption = False) -> None:
    """Match what is in the collection already; hits that are there stay as they are."""
    with wiring.database(collection) as database:
        found = _run_past(database, operation.named(database, watch))
    emit(found, as_json, f"{found.added} new hits among {found.compared} images")


@app.command()
def end(watch: Which, *, collection: Collection = None, as_json: JsonOption = False) -> None:
    """End a watch; its hits stay."""
    with wiring.database(collection) as database:
        ended = operation.end(database, operation.named(database, watch).watch_id)
    emit(ended, as_json, _line(ended))


def _run_past(database: Database, watch: Watch) -> WatchPast:
    with status_line("matching what is there") as tell:
        return operation.run_past(
            database, watch.watch_id, report=lambda step, done, of: tell(f"{step} {done} images")
        )


def _asked(values: dict[str, Any]) -> WatchAsk:
    try:
        return WatchAsk(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{where}: {first['msg']}") from error


def _line(watch: Watch) -> str:
    modes = _counted(len(watch.modes), "mode")
    matched = _counted(watch.hits, "hit")
    state = {"watching": "", "ended": f", ended ({watch.ended_why})",
             "other_space": ", asleep: its collection has moved to another model"}  # fmt: skip
    announced = ", announced" if watch.destination == "events" else ""
    return (
        f"{watch.watch_id}  {watch.name}: {watch.collection} within {watch.max_distance:g}, "
        f"{modes}, {matched}{announced}{state[watch.state]}"
    )


def _hit_lines(found: Sequence[WatchHit]) -> list[str]:
    uris = short_uris([hit.uri for hit in found])
    return [
        f"{hit.at:%Y-%m-%d %H:%M:%S}  {hit.distance:.4f}  {hit.outcome:<9} {uri}"
        for hit, uri in zip(found, uris, strict=True)
    ]


def _tried(found: WatchTrial, max_distance: float) -> list[str]:
    uris = short_uris([hit.uri for hit in found.nearest])
    return [
        f"{found.matching} of {found.compared} kept images of {found.collection} lie within "
        f"{max_distance:g} of {_counted(len(found.modes), 'mode')}; the nearest that pass the "
        "filter:",
        *(f"{hit.distance:.4f}  {uri}" for hit, uri in zip(found.nearest, uris, strict=True)),
    ]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
