"""``pixsift search``: the kept images nearest to some of yours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pixsift.errors import RequestError
from pixsift.operations.retrieve import retrieve
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit


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
        str | None, typer.Option(help="Collection to search; default: the only one.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many images.", min=1)] = 10,
    as_json: JsonOption = False,
) -> None:
    """The kept images nearest to some of yours, exactly, by cosine distance."""
    files = _files(image, folder)
    with wiring.database() as database:
        found = retrieve(database, files, collection=collection, model=wiring.model(), k=k)
    lines = [f"{each.distance:.4f}  {each.uri}" for each in found.neighbors]
    lines += [f"left out {path}: {reason}" for path, reason in found.failures.items()]
    emit(found, as_json, "\n".join(lines))


def _files(images: Sequence[Path] | None, folder: Path | None) -> list[Path]:
    files = list(images or [])
    if folder is not None:
        if not folder.is_dir():
            raise RequestError(f"--folder {folder}: no such folder")
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        if not path.is_file():
            raise RequestError(f"--image {path}: no such file")
    if not files:
        raise RequestError(
            "nothing to search for: give --image FILE or --folder DIR with files in it"
        )
    return files
