"""``pixsift protect add|list|remove``: evaluation sets that selections keep away from."""

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from pixsift.answers.choosing import ProtectedList
from pixsift.errors import RequestError
from pixsift.operations import protect as operation
from pixsift.operations.retrieve import only_collection
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit, no_nan, s3_uri

app = typer.Typer(
    no_args_is_help=True,
    help="Keep selections away from evaluation sets: snapshots, prefixes, folders.",
)

Collection = Annotated[
    str | None,
    typer.Option("--collection", help="Collection; default: 'default', or the only one."),
]


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="protect")


@app.command()
def add(
    evaluation: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="s3://bucket/prefix/, a folder of this machine, or a snapshot's id or name.",
        ),
    ],
    why: Annotated[str, typer.Option("--why", help="The reason, for those who read it later.")],
    distance: Annotated[
        float | None,
        typer.Option(
            min=0, max=2, callback=lambda value: value if value is None else no_nan(value),
            help="Cosine distance within which nothing is chosen; default: the epsilon.",
        ),
    ] = None,
    who: Annotated[
        str | None, typer.Option("--who", help="Who says it; default: the user of this machine.")
    ] = None,
    collection: Collection = None,
    *,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Protect an evaluation set: selections leave out what lies near one of its images."""
    folder = Path(evaluation)
    with wiring.database(collection) as database:
        name = only_collection(database, collection).name
        who = who or getpass.getuser()
        if evaluation.startswith("s3://"):
            told = operation.protect_prefix(
                database, name, s3_uri(evaluation), distance=distance, who=who, why=why
            )
        elif folder.is_dir():
            told = operation.protect_folder(
                database, name, folder, model=wiring.model(), distance=distance, who=who, why=why
            )
        else:
            told = operation.protect_snapshot(
                database, name, evaluation, distance=distance, who=who, why=why
            )
    emit(told, as_json, _lines(told))


@app.command("list")
def list_sets(collection: Collection = None, *, as_json: JsonOption = False) -> None:
    """List the evaluation sets in force."""
    with wiring.database(collection) as database:
        told = operation.list_protected(database, only_collection(database, collection).name)
    emit(told, as_json, _lines(told))


@app.command()
def remove(
    evaluation: Annotated[
        list[str], typer.Argument(metavar="ID", help="Ids of sets: pixsift protect list.")
    ],
    collection: Collection = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Withdraw evaluation sets: later selections may choose near them."""
    try:
        ids = [UUID(text) for text in evaluation]
    except ValueError as error:
        raise RequestError("ids of sets are those that pixsift protect list prints") from error
    with wiring.database(collection) as database:
        told = operation.unprotect(database, only_collection(database, collection).name, ids)
    emit(told, as_json, _lines(told))


def _lines(told: ProtectedList) -> Iterator[str]:
    if not told.sets:
        yield f"collection {told.collection} protects nothing"
    for each in told.sets:
        yield f"{each.protected_id}  {each.source}"
        yield (
            f"    {each.pictures} pictures, nothing is chosen within {each.distance:g}; "
            f"{each.who}, {each.declared_at:%Y-%m-%d}: {each.why}"
        )
        if not each.pictures:
            yield "    no picture is known of it yet"
