"""``pixsift attributes``: what is known of images besides their pixels."""

from pathlib import Path
from typing import Annotated

import typer

from pixsift.adapters.ledger.attributes import attribute_overview, import_attributes
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.core.sidecar import Form, parse_sidecar
from pixsift.errors import RequestError
from pixsift_cli.common import JsonOption, emit, open_database

_FORMS: dict[str, Form] = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
Collection = Annotated[str, typer.Option("--collection", help="Name of the collection.")]

app = typer.Typer(no_args_is_help=True, help="Attributes of images: labels, sites, recordings.")


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="attributes")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or JSON lines (.csv, .json, .jsonl).")],
    collection: Collection,
    *,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out rows that name no known object.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget what earlier files said of these objects.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add attributes from a sidecar file; they go before those of key, metadata and EXIF.

    Each record names an object by uri or key; its other columns are attributes.
    """
    rows = parse_sidecar(_read(file), _form(file))
    with open_database() as database:
        found = Ledger(database).collection(collection)
        done = import_attributes(
            database, found, rows, skip_unknown=skip_unknown, replace=replace, actor="cli"
        )
    facts = {"rows": done.rows, "objects": done.objects, "changed": done.changed,
             "unknown": done.unknown, "seq": done.seq}  # fmt: skip
    text = (
        f"{done.rows} rows for {done.objects} objects: {done.changed} changed, "
        f"collection {collection} is at seq {done.seq}"
    )
    emit(facts, as_json, text + (f", {done.unknown} rows left out" if done.unknown else ""))


@app.command("list")
def list_(collection: Collection, as_json: JsonOption = False) -> None:
    """Which attributes there are, and where they came from."""
    with open_database() as database:
        found = Ledger(database).collection(collection)
        rows = attribute_overview(database, found.collection_id)
    facts = [
        {"name": name, "source": source, "objects": objects, "values": values}
        for name, source, objects, values in rows
    ]
    lines = [f"{n:<24} {s:<9} {o:>9} objects {v:>7} values" for n, s, o, v in rows]
    emit(facts, as_json, "\n".join(lines) or "no attributes yet")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RequestError(f"cannot read {file}: {exc}") from exc


def _form(file: Path) -> Form:
    form = _FORMS.get(file.suffix.lower())
    if form is None:
        raise RequestError(f"{file}: name it .csv, .json or .jsonl, so that its form is clear")
    return form
