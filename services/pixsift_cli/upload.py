"""``pixsift upload``: a folder into a bucket, what is there already left alone."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pixsift.operations.upload import upload as send
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.progress import progress


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(upload)


def upload(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the images.")],
    location: Annotated[str, typer.Argument(metavar="S3URI", help="s3://bucket/prefix")],
    threads: Annotated[int, typer.Option(min=1, max=64, help="Uploads at a time.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Upload a folder; run it again after an interruption and it goes on where it stopped."""
    done = send(
        wiring.uploads(threads=threads), folder, location, threads=threads,
        own_buckets=(wiring.derived_bucket(), wiring.curated_bucket()),
        progress=partial(progress, "uploading"),
    )  # fmt: skip
    text = f"{done.uploaded} uploaded, {done.skipped} there already, {len(done.failed)} failed"
    emit(done, as_json, "\n".join([text, *(f"{k}: {v}" for k, v in done.failed.items())]))
    if done.failed:
        raise typer.Exit(1)
