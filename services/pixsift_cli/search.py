"""``pixsift search``: the kept images nearest to some of yours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from pixsift.adapters.postgres.database import Database
from pixsift.answers.choosing import Neighbor, Neighbors
from pixsift.api import Example, SearchAnswer, SearchAsk
from pixsift.core.files import shown
from pixsift.errors import RequestError
from pixsift.messages import Range, Where2
from pixsift.operations.find import find_by_files
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.paths import collection_name, prefix_named, uri_named
from pixsift.pages.gallery import gallery
from pixsift.pages.pictures import Picture
from pixsift_cli import wiring
from pixsift_cli.choosing.options import attribute_conditions
from pixsift_cli.common import (
    JsonOption,
    check_writable,
    emit,
    short_uris,
    write_text,
)

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
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="s3://bucket/key, or a file, of an image in the ledger; may be repeated."
        ),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix, or a folder: the kept images below it.")
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(help="s3://bucket/key, or a file, of a counterexample; may be repeated."),
    ] = None,
    way: Annotated[
        str,
        typer.Option(
            help="nearest: to any image; modes: to each group of images that look alike, in turn; "
            "mean: to their mean; auto: modes from three images on."
        ),
    ] = "auto",
    own: Annotated[bool, typer.Option("--own", help="Also find the query's own images.")] = False,
    max_distance: Annotated[
        float | None, typer.Option(min=0, max=2, help="Only images within this cosine distance.")
    ] = None,
    expanded: Annotated[
        bool, typer.Option("--expanded", help="Also list the duplicates of each image found.")
    ] = False,
    outcome: Annotated[
        str, typer.Option(help="kept, duplicate, or any: which images may be found.")
    ] = "kept",
    collection: Annotated[
        str | None, typer.Option(help="Collection; default: 'default', or the only one.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of images.", min=1, max=10_000)] = 10,
    where: Annotated[
        list[str] | None, typer.Option(help="attribute=value; may be repeated.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the kept images nearest to your images (exact search by cosine distance)."""
    files = _files(image, folder, others=bool(like or prefix))
    check_writable(html)
    with wiring.database(collection, *like or (), prefix, *unlike or ()) as database:
        name = None if collection is None else collection_name(database, collection)
        ask = _asked({
            "collection": name, "examples": _examples(database, like),
            "folder": None if prefix is None else prefix_named(database, prefix),
            "counterexamples": _examples(database, unlike), "way": way, "k": k, "own": own,
            "where": Where2(attributes=attribute_conditions(where), flagged="include"),
            "distance": None if max_distance is None else Range(max=max_distance),
            "duplicates": "expanded" if expanded else "folded", "outcome": outcome,
        })  # fmt: skip
        found = _neighbors(find_by_files(database, files, ask, model=wiring.model()))
        if html is not None:
            pictures = uris_and_thumbnails(
                database, wiring.objects(), wiring.derived_bucket(),
                [each.object_id for each in found.neighbors],
            )  # fmt: skip
            _draw(html, found, pictures)
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


def _draw(path: Path, found: Neighbors, known: Mapping[int, tuple[str, bytes | None]]) -> None:
    pictures = [
        Picture.inline(
            known[each.object_id][1],
            f"distance {each.distance:.4f}{_itself(each)}",
            short_uris([each.uri])[0],
            f"near {shown(each.nearest_to)}",
        )
        for each in found.neighbors
    ]
    write_text(path, gallery(
        f"{len(pictures)} nearest images of collection {found.collection}",
        ["cosine distance to the nearest of the query's images, the nearest first"], pictures,
    ))  # fmt: skip


def _asked(values: dict[str, Any]) -> SearchAsk:
    try:
        return SearchAsk(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{where}: {first['msg']}") from error


def _examples(database: Database, named: Sequence[str] | None) -> list[Example]:
    """Of URIs and paths. Raises as ``object_named``."""
    return [Example(uri=uri_named(database, text)) for text in named or []]


def _neighbors(found: SearchAnswer) -> Neighbors:
    return Neighbors(
        collection=found.collection,
        neighbors=[
            Neighbor(object_id=hit.object_id, uri=hit.uri, distance=hit.distance,
                     nearest_to=hit.nearest_to, mode=hit.mode)
            for hit in found.hits
        ],
        failures=found.failures,
    )  # fmt: skip


def _files(images: Sequence[Path] | None, folder: Path | None, *, others: bool) -> list[Path]:
    files = list(images or [])
    if folder is not None:
        if not folder.is_dir():
            raise RequestError(f"--folder {folder}: the folder does not exist")
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        if not path.is_file():
            raise RequestError(f"--image {path}: the file does not exist")
    if not files and not others:
        raise RequestError(
            "nothing to search for: give --image FILE or --folder DIR with files in it, "
            "--like s3://... or --prefix s3://... (or the path of a curated folder's file)"
        )
    return files
