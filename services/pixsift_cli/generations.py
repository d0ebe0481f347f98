"""``pixsift whatif|redecide|undo``: another rule, without embedding anything again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import Progress

from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import RuleComparison, SwitchedGeneration, TakenBack
from pixsift.core.files import shown
from pixsift.operations import redecide as operation
from pixsift.operations.paths import collection_with, names_object, object_named
from pixsift.operations.redecide import Wanted, warning
from pixsift.operations.retrieve import only_collection
from pixsift.operations.take_back import take_back
from pixsift.words import in_words
from pixsift_cli import wiring
from pixsift_cli.collection import Masks, boxes
from pixsift_cli.common import JsonOption, emit, warn
from pixsift_cli.terminal import console

Name = Annotated[
    str | None, typer.Argument(help="Collection; default: 'default', or the only one.")
]
Epsilon = Annotated[
    float | None,
    typer.Option(help="Cosine distance of near-duplicates; default: as it is, or the preset's."),
]
Preset = Annotated[
    str | None,
    typer.Option(help="A rule by what the cameras do: static_camera, moving_camera or photos."),
]
ChangeLimit = Annotated[
    float,
    typer.Option(
        min=0.1, max=10, help="Factor on what counts as a change: 0.5 keeps more, 2 keeps less."
    ),
]
WithoutLook = Annotated[
    bool, typer.Option("--no-second-look", help="Decide by the embedding alone.")
]
KeepBest = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Margin by which a sharper image replaces its representative; 0: none does; "
        "default: as it is.",
    ),
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Discard a generation that a crash left unfinished.")
]


_QUEUE = "sent to the queue again"
_NEXT_RUN = "judged again by the next run"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(whatif)
    app.command()(redecide)
    app.command()(undo)


def whatif(
    name: Name = None, *, epsilon: Epsilon = None, preset: Preset = None,
    change_limit: ChangeLimit = 1.0, mask: Masks = None, no_second_look: WithoutLook = False,
    keep_best: KeepBest = None,
    examples: Annotated[int, typer.Option(min=0, max=1000, help="How many examples to show.")] = 10,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show what another rule would change, without changing or embedding anything."""
    wanted = Wanted(
        epsilon, preset, change_limit, boxes(mask), not no_second_look,
        keep_best=True if keep_best is None else keep_best or False,
    )  # fmt: skip
    with wiring.database(name) as database:
        name = only_collection(database, name).name
        warn(warning(database, name, wanted))
        comparison = operation.what_if(database, name, wanted, examples=examples)
    emit(comparison, as_json, _whatif_text(comparison))


def redecide(
    name: Name = None, *, epsilon: Epsilon = None, preset: Preset = None,
    change_limit: ChangeLimit = 1.0, mask: Masks = None, no_second_look: WithoutLook = False,
    keep_best: KeepBest = None,
    take_over: TakeOver = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Decide all images again with another rule, and switch to the result."""
    wanted = Wanted(
        epsilon, preset, change_limit, boxes(mask), not no_second_look,
        keep_best=True if keep_best is None else keep_best or False,
    )  # fmt: skip
    with wiring.database(name) as database, _progress() as report:
        name = only_collection(database, name).name
        warn(warning(database, name, wanted))
        wiring.meet_journal(database)
        done = operation.redecide(
            database, name, wanted, take_over=take_over, progress=report, actor=wiring.ACTOR
        )
    emit(done, as_json, switched_text(done))


def undo(
    name: Name = None,
    uri: Annotated[
        str | None, typer.Argument(help="s3://bucket/key, or a file: undo only this decision.")
    ] = None,
    *, take_over: TakeOver = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Return to the previous generation, or undo the decision about one object.

    One object: kept and duplicate are decided again from the stored vectors; rejected, failed and
    gone are sent through the queue once more.
    """
    with wiring.database(name, uri) as database:
        wiring.meet_journal(database)
        if uri is None and name is not None and names_object(database, name):
            name, uri = None, name
        if uri is not None:
            _undo_one(database, name, uri, as_json)
            return
        with _progress() as report:
            done = operation.undo(
                database,
                only_collection(database, name).name,
                take_over=take_over,
                progress=report,
                actor=wiring.ACTOR,
            )
    emit(done, as_json, switched_text(done))


def _undo_one(database: Database, name: str | None, uri: str, as_json: bool) -> None:
    wanted = object_named(database, uri)
    name = name or collection_with(database, wanted)
    taken_back = take_back(
        database, wiring.ingest_queue(), only_collection(database, name).name, wanted,
        actor=wiring.ACTOR,
    )  # fmt: skip
    again = _NEXT_RUN if wiring.uses_folders() else _QUEUE
    emit(taken_back, as_json, _taken_back_text(taken_back, again))


def _taken_back_text(done: TakenBack, again: str) -> list[str]:
    lines = [f"undone, {again}: {shown(uri)}" for uri in done.sent_again]
    lines += [
        f"{shown(c.uri)}: {c.was} -> {c.outcome} ({in_words(c.reason)})" for c in done.decided_again
    ]
    if done.unchanged:
        lines.append(f"{done.unchanged} versions decided again, with the same outcome")
    return lines


def switched_text(done: SwitchedGeneration) -> list[str]:
    """A new generation in one paragraph."""
    return [
        f"{done.collection} is at generation {done.generation} (epsilon {done.epsilon:g}) since "
        f"seq {done.seq}: {done.kept} kept, {done.duplicate} duplicates; took "
        f"{done.seconds:.1f} s, decisions waited {done.lock_seconds * 1000:.0f} ms.",
        f"To return: pixsift undo {done.collection}",
    ]


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr where that is a terminal."""
    there = console(err=True)
    with Progress(console=there, transient=True, disable=not there.is_terminal) as bar:
        task = bar.add_task("deciding again", total=None)

        def report(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield report


def _whatif_text(comparison: RuleComparison) -> list[str]:
    lines = [
        f"{comparison.collection} at seq {comparison.at_seq}, epsilon "
        f"{comparison.epsilon_now:g} -> {comparison.epsilon:g} "
        f"(nothing was changed, {comparison.seconds:.1f} s):",
        f"  kept        {comparison.kept_now} -> {comparison.kept}",
        f"  duplicates  {comparison.duplicate_now} -> {comparison.duplicate}",
        f"  {comparison.newly_duplicate} kept ones would become duplicates, "
        f"{comparison.newly_kept} duplicates would be kept",
    ]
    for example in comparison.examples:
        distance = "" if example["distance"] is None else f"{example['distance']:.4f} "
        lines += [
            f"    {example['from']} -> {example['to']}: {shown(example['uri'])}",
            f"      {distance}from {shown(example['of'])}",
        ]
    return lines
