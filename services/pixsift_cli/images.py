"""``pixsift images``: lists images by outcome, or shows them as a page of thumbnails."""

from pathlib import Path
from typing import Annotated

import typer

from pixsift.answers.images import ImageLine
from pixsift.operations import images as operation
from pixsift.pages.gallery import gallery
from pixsift.pages.pictures import Picture
from pixsift.words import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, check_writable, emit, short_uris, write_text


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(images)


def images(
    *,
    outcome: Annotated[
        str | None, typer.Option(help="kept, duplicate, rejected, gone or failed.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason, such as black.")] = None,
    prefix: Annotated[str, typer.Option(help="Only keys with this prefix.")] = "",
    collection: Annotated[
        str | None, typer.Option(help="Collection; default: 'default', or the only one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number.")] = 100,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with their thumbnails.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List images by outcome, the newest decision first."""
    check_writable(html)
    with wiring.database(collection) as database:
        found = operation.images(
            database, collection=collection, outcome=outcome, reason=reason, prefix=prefix,
            limit=limit,
        )  # fmt: skip
        keys = [row.thumbnail_key for row in found.images if row.thumbnail_key and html]
        shown = operation.thumbnails(wiring.objects(), wiring.derived_bucket(), keys)
    uris = short_uris([row.uri for row in found.images])
    if html is not None:
        pictures = [
            Picture.inline(shown.get(row.thumbnail_key or ""), f"{row.outcome}: {_why(row)}",
                           uri, *_of(row))
            for row, uri in zip(found.images, uris, strict=True)
        ]  # fmt: skip
        title = f"{len(pictures)} images of collection {found.collection}"
        facts = [f"{outcome or 'any outcome'}, {in_words(reason or 'any reason')}"]
        if not pictures:
            facts.append("There are no such images: pixsift status counts those that there are.")
        write_text(html, gallery(title, facts, pictures))
    lines = [
        f"{row.outcome:<10} {_why(row):<24} {uri}"
        for row, uri in zip(found.images, uris, strict=True)
    ] or ["no such images"]
    lines += [f"page: {html}"] if html is not None else []
    emit(found, as_json, lines)


def _why(row: ImageLine) -> str:
    text = in_words(row.reason or "")
    return text if row.distance is None else f"{text}, cosine distance {row.distance:.4f}"


def _of(row: ImageLine) -> list[str]:
    return [f"represented by {short_uris([row.representative])[0]}"] if row.representative else []
