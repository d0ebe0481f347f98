"""``pixsift search``: the kept images nearest to some of yours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pixsift.answers import Neighbor, Neighbors
from pixsift.errors import RequestError
from pixsift.messages import Where
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.retrieve import retrieve
from pixsift.pages.gallery import gallery
from pixsift.pages.pictures import Picture
from pixsift_cli import wiring
from pixsift_cli.choosing.options import attribute_conditions
from pixsift_cli.common import JsonOption, check_writable, emit, short_uris, write_text

_SAME = 1e-4
"""Cosine distance: below it, the stored half floats of a picture and its own query differ."""


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.command()(search)


def search(
    *,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image file; may be repeated.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder of image files.")] = None,
    collection: Annotated[
        str | None, typer.Option(help="Collection; default: 'default', or the only one.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of images.", min=1)] = 10,
    where: Annotated[
        list[str] | None, typer.Option(help="attribute=value; may be repeated.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the kept images nearest to your images (exact search by cosine distance)."""
    files = _files(image, folder)
    check_writable(html)
    with wiring.database() as database:
        found = retrieve(
            database, files, collection=collection, model=wiring.model(), k=k,
            where=Where(attributes=attribute_conditions(where)),
        )  # fmt: skip
        if html is not None:
            shown = uris_and_thumbnails(
                database, wiring.objects(), wiring.derived_bucket(),
                [each.object_id for each in found.neighbors],
            )  # fmt: skip
            _draw(html, found, shown)
    uris = short_uris([each.uri for each in found.neighbors])
    lines = [
        f"{each.distance:.4f}  {uri}{_itself(each)}"
        for each, uri in zip(found.neighbors, uris, strict=True)
    ]
    lines += [f"skipped {path}: {reason}" for path, reason in found.failures.items()]
    lines += [f"page: {html}"] if html is not None else []
    emit(found, as_json, lines)


def _itself(found: Neighbor) -> str:
    return "  (the query's own picture)" if found.distance < _SAME else ""


def _draw(path: Path, found: Neighbors, shown: Mapping[int, tuple[str, bytes | None]]) -> None:
    pictures = [
        Picture.inline(
            shown[each.object_id][1],
            f"distance {each.distance:.4f}{_itself(each)}",
            short_uris([each.uri])[0],
            f"near {each.nearest_to}",
        )
        for each in found.neighbors
    ]
    write_text(path, gallery(
        f"{len(pictures)} nearest images of collection {found.collection}",
        ["cosine distance to the nearest of the query's images, the nearest first"], pictures,
    ))  # fmt: skip


def _files(images: Sequence[Path] | None, folder: Path | None) -> list[Path]:
    files = list(images or [])
    if folder is not None:
        if not folder.is_dir():
            raise RequestError(f"--folder {folder}: the folder does not exist")
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        if not path.is_file():
            raise RequestError(f"--image {path}: the file does not exist")
    if not files:
        raise RequestError(
            "nothing to search for: give --image FILE or --folder DIR with files in it"
        )
    return files
