"""``pixsift attributes``: import and list attributes of images."""

from pathlib import Path
from typing import Annotated

import typer

from pixsift.core.sidecar import Form, parse_sidecar
from pixsift.errors import RequestError
from pixsift.operations.attributes import import_attributes, list_attributes
from pixsift.operations.retrieve import only_collection
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit

_FORMS: dict[str, Form] = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
Collection = Annotated[
    str | None,
    typer.Option("--collection", help="Collection; default: 'default', or the only one."),
]

app = typer.Typer(no_args_is_help=True, help="Attributes of images: labels, sites, recordings.")


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="attributes")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or JSON lines (.csv, .json, .jsonl).")],
    collection: Collection = None,
    *,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Skip rows whose object is unknown.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the values from earlier files for these objects."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add attributes from a sidecar file.

    They have priority over those of key, metadata and EXIF.

    Each record names an object by uri or key; its other columns are attributes.
    """
    rows = parse_sidecar(_read(file), _form(file))
    with wiring.database() as database:
        name = only_collection(database, collection).name
        done = import_attributes(
            database,
            name,
            rows,
            skip_unknown=skip_unknown,
            replace=replace,
            actor=wiring.ACTOR,
        )
    text = (
        f"{done.rows} rows for {done.objects} objects: {done.changed} changed, "
        f"collection {name} is at seq {done.seq}"
    )
    emit(done, as_json, text + (f", {done.unknown} rows skipped" if done.unknown else ""))


@app.command("list")
def list_(collection: Collection = None, as_json: JsonOption = False) -> None:
    """Which attributes there are, and where they came from."""
    with wiring.database() as database:
        found = list_attributes(database, only_collection(database, collection).name)
    lines = [
        f"{each.name:<24} {each.source:<9} {each.objects:>9} objects {each.values:>7} values"
        for each in found
    ]
    emit(found, as_json, lines or "no attributes yet")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RequestError(f"cannot read {file}: {exc}") from exc


def _form(file: Path) -> Form:
    form = _FORMS.get(file.suffix.lower())
    if form is None:
        raise RequestError(f"{file}: its name must end in .csv, .json or .jsonl")
    return form
