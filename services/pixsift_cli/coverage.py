"""``pixsift coverage``: what a collection lacks, what a reference set lacks, and what is new."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer
from pydantic import BaseModel, ValidationError

from pixsift.api import Example
from pixsift.api_coverage import CoverageAsk, CoverageReport, NoveltyAsk
from pixsift.errors import RequestError
from pixsift.operations import coverage as operation
from pixsift.operations.examples import Uploads
from pixsift.operations.find import uploads_of_files
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.paths import collection_name
from pixsift.operations.retrieve import only_collection
from pixsift.pages.coverage import coverage_page
from pixsift_cli import wiring
from pixsift_cli.choosing.options import attribute_conditions
from pixsift_cli.common import JsonOption, check_writable, emit, short_uris, write_text
from pixsift_cli.terminal import status_line

app = typer.Typer(
    no_args_is_help=True, help="What a collection and a reference set lack; what of it is new."
)
Ask = TypeVar("Ask", bound=BaseModel)
Collection = Annotated[
    str | None, typer.Option(help="Collection; default: 'default', or the only one.")
]


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="coverage")


@app.command()
def compare(
    *,
    radius: Annotated[
        float, typer.Option(help="Cosine distance within which an image covers another.")
    ],
    prefix: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix: the reference images below it.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="A snapshot as the reference: its id, request id or name.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="A folder of image files as the reference.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, max=200, help="Gaps and regions to list.")] = 24,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    collection: Collection = None,
    as_json: JsonOption = False,
) -> None:
    """Show references without a near image, and images without a near reference."""
    files: list[Path] = []
    if folder is not None:
        if not folder.is_dir():
            raise RequestError(f"--folder {folder}: the folder does not exist")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    check_writable(html)
    with wiring.database(collection) as database, status_line("comparing") as tell:
        name = None if collection is None else collection_name(database, collection)
        ask = _asked(CoverageAsk, {
            "radius": radius, "folder": prefix, "snapshot": snapshot, "pictures": pictures,
            "examples": [Example(upload=str(path)) for path in files],
        })  # fmt: skip
        uploads = Uploads()
        if files:
            mine = only_collection(database, name)
            uploads = uploads_of_files(files, mine, model=wiring.model())
        found = operation.compare(
            database, name, ask, uploads=uploads, report=lambda step, done, of: tell(step)
        )
        if html is not None:
            shown = uris_and_thumbnails(
                database, wiring.objects(), wiring.derived_bucket(), sorted(_ids(found))
            )
            write_text(html, coverage_page(found, {i: body for i, (_, body) in shown.items()}))
    emit(found, as_json, [*_lines(found), *([f"page: {html}"] if html is not None else [])])


@app.command()
def novelty(
    *,
    by: Annotated[str, typer.Option(help="An attribute such as robot or site; or day, hour.")],
    last: Annotated[
        int | None, typer.Option(min=1, help="Only the newest so many frames of each group.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="attribute=value; may be repeated.")
    ] = None,
    order: Annotated[str, typer.Option(help="group, novelty or frames.")] = "group",
    collection: Collection = None,
    as_json: JsonOption = False,
) -> None:
    """Show how much of what came was new: the share of the frames that was kept."""
    with wiring.database(collection) as database:
        name = None if collection is None else collection_name(database, collection)
        ask = _asked(NoveltyAsk, {
            "by": by, "last": last, "where": attribute_conditions(where),
            "order": cast(Literal["group", "novelty", "frames"], order),
        })  # fmt: skip
        found = operation.novelty(database, name, ask)
    which = "frames" if last is None else f"of the last {last} frames"
    lines = [
        f"{each.group or '(none)'}: {each.kept} of {each.frames} {which} kept, "
        f"{100 * each.novelty:.1f} %" + (f"; {each.rejected} rejected" if each.rejected else "")
        for each in found.groups
    ]
    lines.append(f"all: {found.kept} of {found.frames} kept, {100 * found.novelty:.1f} %")
    emit(found, as_json, lines)


def _asked(model: type[Ask], values: dict[str, Any]) -> Ask:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{where}: {message}" if where else message) from error


def _ids(found: CoverageReport) -> set[int]:
    seen = [each.reference for each in found.gap_list]
    seen += [each.nearest for each in found.gap_list if each.nearest is not None]
    seen += [each for region in found.regions for each in region.examples]
    return {each.object_id for each in seen if each.object_id is not None}


def _lines(found: CoverageReport) -> list[str]:
    lines = [
        f"{found.gaps} of {found.references} references have no image of {found.collection} within "
        f"{found.radius:g}",
        f"{found.uncovered} of {found.images} images have no reference within {found.radius:g}",
    ]
    uris = short_uris([gap.reference.uri for gap in found.gap_list])
    for gap, uri in zip(found.gap_list, uris, strict=True):
        near = "" if gap.nearest is None else f"; nearest {short_uris([gap.nearest.uri])[0]}"
        far = "-" if gap.distance is None else f"{gap.distance:.4f}"
        lines.append(f"gap     {far}  {uri}{near}")
    for region in found.regions:
        like = ", ".join(short_uris([each.uri for each in region.examples[:2]]))
        many = f"{region.images} image{'s' * (region.images != 1)}"
        lines.append(f"region  {many} ({100 * region.share:.1f} %), like {like}")
    lines += [f"skipped {name}: {reason}" for name, reason in found.failures.items()]
    return lines
