"""``pixsift select``: what a request would choose, compared with random; copies nothing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import RenderableType
from rich.table import Column, Table

from pixsift.core.choosing.coverage import Comparison
from pixsift.core.choosing.projection import plane
from pixsift.errors import RequestError
from pixsift.messages import SnapshotRequest
from pixsift.operations import choose as operation
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.paths import without_paths
from pixsift.operations.retrieve import only_collection
from pixsift.pages.comparison import comparison_page
from pixsift.pages.pictures import Picture
from pixsift.pages.selection import selection_page, ways
from pixsift_cli import wiring
from pixsift_cli.choosing.contest_text import contest_text
from pixsift_cli.choosing.options import Changes, named_in, with_selection_options
from pixsift_cli.choosing.snapshot import build_request
from pixsift_cli.common import JsonOption, emit, short_uris
from pixsift_cli.terminal import cell, drawn

_MAP_POINTS = 3000
_PICTURES = 500
"""Thumbnails in the page: some 10 kB each."""
_LEFT_OUT = 48
"""Thumbnails of images left out as odd."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(name="select")(choose)


@with_selection_options
def choose(
    file: Annotated[
        Path | None, typer.Argument(help="JSON of a snapshot request; options change its fields.")
    ] = None,
    *,
    changes: Changes,
    report_by: Annotated[
        str | None, typer.Option(help="Attribute to report by; default: --by, else clusters.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also write the report as an HTML page with pictures.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Required: this command copies nothing.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Every strategy at several sizes, side by side.")
    ] = False,
    label: Annotated[
        str | None, typer.Option(help="Of --compare: attribute that a probe learns to tell.")
    ] = None,
    hold_out: Annotated[
        str | None, typer.Option(help="Of --compare: attribute whose values are tested together.")
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="Of --compare: a k to compare at; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which images a request would choose and how well they cover the pool; copy nothing."""
    if compare:
        _compare(file, changes, picture, as_json, label=label, group=hold_out, ks=size or ())
        return
    if label or hold_out or size:
        raise RequestError("--label, --hold-out and --size need --compare")
    if not dry_run:
        raise RequestError(
            "pixsift select only shows what would be chosen: add --dry-run, "
            "or make a snapshot of it with pixsift snapshot request"
        )
    changes["name"] = "dry-run"
    with wiring.database(*named_in(changes)) as database:
        request = build_request(
            file, changes, lambda: only_collection(database, None).name,
            settle=lambda raw: without_paths(database, raw),
        )  # fmt: skip
    with (
        wiring.database(*named_in(changes)) as database,
        operation.choose(database, request, report_by=report_by) as choice,
    ):
        if picture is not None:
            selection = choice.selection
            shown = uris_and_thumbnails(
                database, wiring.objects(), wiring.derived_bucket(),
                [*selection.object_ids.tolist()[:_PICTURES],
                 *selection.outliers.tolist()[:_LEFT_OUT]],
            )  # fmt: skip
            _draw(picture, request, choice, shown)
        facts = operation.preview(database, request, choice)
    text = _text(facts.model_dump(), choice.comparison)
    emit(facts, as_json, text + (["", f"picture: {picture}"] if picture else []))


def _picks(
    choice: operation.Choice, shown: Mapping[int, tuple[str, bytes | None]]
) -> list[Picture]:
    """The first picks in the order of their choice. shown: URI and thumbnail by object."""
    chosen = choice.selection.object_ids.tolist()
    uris = dict(zip(shown, short_uris([uri for uri, _ in shown.values()]), strict=True))
    rows = list(zip(chosen, choice.splits, choice.selection.reasons, strict=True))[:_PICTURES]
    return [
        Picture.inline(shown[object_id][1], f"{rank}, {split}", uris[object_id], reason)
        for rank, (object_id, split, reason) in enumerate(rows)
        if object_id in shown
    ]


def _left_out(
    choice: operation.Choice, shown: Mapping[int, tuple[str, bytes | None]]
) -> list[Picture]:
    """The images farthest from their neighbors, which were left out as odd."""
    lost = [shown[i] for i in choice.selection.outliers.tolist()[:_LEFT_OUT] if i in shown]
    names = short_uris([uri for uri, _ in lost])
    return [Picture.inline(found, name) for (_, found), name in zip(lost, names, strict=True)]


def _compare(
    file: Path | None,
    changes: Changes,
    picture: Path | None,
    as_json: bool,
    *,
    label: str | None,
    group: str | None,
    ks: Sequence[int],
) -> None:
    changes["name"] = "compare"
    if file is None and changes["select"]["k"] is None:
        changes["select"]["k"] = 1  # sizes are compared, not one k
    with wiring.database(*named_in(changes)) as database:
        request = build_request(
            file, changes, lambda: only_collection(database, None).name,
            settle=lambda raw: without_paths(database, raw),
        )  # fmt: skip
        found = operation.compare_strategies(
            database, wiring.objects(), wiring.derived_bucket(), request,
            label=label, group=group, ks=ks,
        )  # fmt: skip
    if picture is not None:
        _write(picture, comparison_page(
            f"Strategies compared on collection {request.collection}",
            f"{found.contest.compared_on} of {found.contest.candidates} images, at seq "
            f"{found.facts.at_seq}, seed {request.select.seed}",
            found.contest, found.pictures,
        ))  # fmt: skip
    text = contest_text(found.contest)
    emit(found.facts, as_json, text + (["", f"picture: {picture}"] if picture else []))


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, "utf-8")
    except OSError as exc:
        raise RequestError(f"--picture {path}: {exc.strerror}") from exc


def _draw(
    path: Path,
    request: SnapshotRequest,
    choice: operation.Choice,
    pictures: Mapping[int, tuple[str, bytes | None]],
) -> None:
    """pictures: URI and thumbnail by object."""
    selection, compared = choice.selection, choice.comparison
    rng = np.random.default_rng(request.select.seed)
    others = np.setdiff1d(selection.candidates, selection.indices)
    shown = np.concatenate([rng.permutation(others)[:_MAP_POINTS], selection.indices[:_MAP_POINTS]])
    page = selection_page(
        f"{request.select.strategy} selection of {selection.indices.size} images",
        f"collection {request.collection}, {selection.candidates.size} candidates, "
        f"distances measured on {compared.measured_on}, seed {request.select.seed}",
        compared,
        plane(choice.pool.rows, shown),
        np.isin(shown, selection.indices).tolist(),
        picks=_picks(choice, pictures),
        left_out=_left_out(choice, pictures),
        left_out_count=selection.outliers.size,
        warning=str(selection.report["warning"]) if "warning" in selection.report else None,
    )
    _write(path, page)


def _text(facts: dict[str, Any], compared: Comparison) -> list[str]:
    parts = ", ".join(f"{name} {count}" for name, count in facts["splits"].items())
    shown: list[RenderableType] = [
        *map(cell, _about(facts)), _coverage_table(compared), _strata_table(compared),
        cell(f"splits: {parts}"),
    ]  # fmt: skip
    return drawn(shown, width=100)


def _about(facts: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{facts['k']} of {facts['candidates']} candidates by {facts['strategy']}, "
        f"seed {facts['seed']}, collection {facts['collection']} at seq {facts['at_seq']}"
    )
    for name in ("preselected", "outliers", "erased"):
        if facts[name]:
            yield f"{name}: {facts[name]}"
    if facts.get("without_time") or facts.get("time_of_s3"):
        yield (
            f"by time: {facts['without_time']} without any time left out, "
            f"{facts['time_of_s3']} taken by S3's time of the write"
        )
    if facts.get("by_duplicates"):
        yield (
            f"by duplicates: {facts['by_duplicates']} images have the attributes or prefix only "
            "through a duplicate that they represent"
        )
    if facts.get("label_conflicts"):
        yield from _conflicts(facts)
    if facts.get("flagged_out"):
        yield (
            f"flagged: {facts['flagged_out']} images with a quality flag left out "
            "(--flagged include takes them in)"
        )
    if facts.get("protected_out") is not None:
        yield (
            f"protected: {facts['protected_out']} images near an evaluation set left out "
            "(--protected include takes them in)"
        )
    for name in ("auto", "warning", "fewer", "cap_effect", "trim_effect"):
        if name in facts:
            yield str(facts[name])


def _conflicts(facts: dict[str, Any]) -> Iterator[str]:
    yield (
        f"conflicts: {facts['label_conflicts']} images have, with their duplicates, several values "
        "of an attribute asked for"
    )
    for each in facts["label_conflict_examples"][:10]:
        yield f"  object {each['object_id']}: {each['attribute']} {', '.join(each['values'])}"


def _coverage_table(compared: Comparison) -> Table:
    table = Table("", *(f"first {p.chosen}" for p in compared.selection.curve[-5:]))
    table.title = (
        "covering radius / mean distance (cosine distance to the nearest chosen image), "
        f"measured on {compared.measured_on} images"
    )
    for label, coverage in ways(compared):
        table.add_row(
            label,
            *(f"{p.covering_radius:.4f} / {p.mean_distance:.4f}" for p in coverage.curve[-5:]),
        )
    return table


def _strata_table(compared: Comparison) -> Table:
    # Names come from outside: as Text, so that they are not read as markup.
    table = Table(Column(cell(compared.by)), "pool", *(label for label, _ in ways(compared)))
    names = sorted(compared.pool_strata, key=lambda n: (-compared.pool_strata[n], n))
    for name in names[:20]:
        counts = (str(c.strata[name]) for _, c in ways(compared))
        table.add_row(cell(name), str(compared.pool_strata[name]), *counts)
    if len(names) > 20:
        table.add_row(f"and {len(names) - 20} more")
    return table
