"""``pixsift demo``: robots upload, a snapshot appears, and the ledger is checked."""

from pathlib import Path
from typing import Annotated

import typer

from pixsift.operations.demo.run import run_demo
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit_json
from pixsift_cli.demo.view import DemoView, summary
from pixsift_cli.local.signals import stopped_by_signals
from pixsift_cli.terminal import say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(demo)


def demo(
    images: Annotated[
        Path | None,
        typer.Option(help="Use the photos in this folder instead of the built-in ones."),
    ] = None,
    frames: Annotated[int, typer.Option(min=4, max=200, help="Per scene and robot.")] = 24,
    k: Annotated[int, typer.Option(min=1, help="Images in the snapshot, at most.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Run pixsift on three simulated robots, take a snapshot, and verify the ledger."""
    view = DemoView(quiet=as_json)
    with stopped_by_signals():
        report = run_demo(
            wiring.state_folder(), wiring.loop_ingredients(), wiring.demo_connections(), view,
            images=images, frames=frames, k=k,
        )  # fmt: skip
    if as_json:
        emit_json(report)
    else:
        view.show(summary(report))
    for complaint in report.complaints:
        say(f"pixsift: the ledger is wrong: {complaint}", err=True)
    if report.complaints:
        raise typer.Exit(1)
