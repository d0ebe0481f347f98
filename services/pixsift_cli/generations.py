"""``pixsift whatif|redecide|undo``: another rule, without embedding anything again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.generations import Generations, Switched, WhatIf
from pixsift.adapters.ledger.generations import Progress as Report
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.config import QueueSettings
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.reconcile import backfill_bodies
from pixsift_cli.collection import warn_of_noise
from pixsift_cli.common import JsonOption, emit, open_database, s3_uri

Name = Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)]
Epsilon = Annotated[float, typer.Option(help="Cosine distance of near-duplicates to try.")]
WithoutLook = Annotated[
    bool, typer.Option("--no-second-look", help="Let the embedding alone decide.")
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Discard a generation that a crash left unfinished.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(whatif)
    app.command()(redecide)
    app.command()(undo)


def whatif(
    name: Name, epsilon: Epsilon, no_second_look: WithoutLook = False,
    examples: Annotated[int, typer.Option(min=0, max=1000, help="How many examples to show.")] = 10,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Say what another epsilon would change. Nothing is changed, nothing is embedded."""
    _check(epsilon)
    with open_database() as database:
        collection = Ledger(database).collection(name)
        warn_of_noise(epsilon, (collection.calibration or {}).get("noise"))
        told = Generations(database).what_if(
            collection, epsilon=epsilon,
            second_look=not no_second_look, examples=examples,
        )  # fmt: skip
    emit(asdict(told), as_json, _whatif_text(told))


def redecide(
    name: Name, epsilon: Epsilon, no_second_look: WithoutLook = False,
    take_over: TakeOver = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Decide everything again under another epsilon, and switch to the result."""
    _check(epsilon)
    with open_database() as database, _progress() as report:
        collection = Ledger(database).collection(name)
        warn_of_noise(epsilon, (collection.calibration or {}).get("noise"))
        done = Generations(database, actor="cli").redecide(
            collection, epsilon=epsilon,
            second_look=not no_second_look, take_over=take_over, progress=report,
        )  # fmt: skip
    emit(asdict(done), as_json, switched_text(done))


def undo(
    name: Name,
    uri: Annotated[
        str | None, typer.Argument(help="s3://bucket/key: take back this object's decision only.")
    ] = None,
    *, take_over: TakeOver = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Go back to the previous generation; or take back the decision about one object.

    One object: kept and duplicate are decided again from the stored vectors; rejected, failed and
    gone are sent through the queue once more.
    """
    if uri is not None:
        _undo_one(name, uri, as_json)
        return
    with open_database() as database, _progress() as report:
        done = Generations(database, actor="cli").undo(
            Ledger(database).collection(name), take_over=take_over, progress=report
        )
    emit(asdict(done), as_json, switched_text(done))


def _undo_one(name: str, text: str, as_json: bool) -> None:
    wanted = s3_uri(text)
    with open_database() as database:
        rejudge = Rejudge(database, actor="cli")
        collection = Ledger(database).collection(name)
        found = rejudge.find(wanted.bucket, wanted.key, wanted.version_id)
        if not found:
            raise NotFoundError(f"the ledger knows no object {text} that is not erased")
        ids = [known.object_id for known in found]
        queue = SqsQueue(QueueSettings().ingest_queue)
        queue.depth()  # it must answer before a decision is taken back
        undone = set(rejudge.take_back(collection, ids))
        # Before anything that can fail: duplicates of a remembered one that was taken back.
        changed = rejudge.again(collection, ids, why="undo")
        queue.send(backfill_bodies([k.version for k in found if k.object_id in undone]))
    facts = {
        "sent_again": [k.version.uri for k in found if k.object_id in undone],
        "decided_again": [asdict(change) for change in changed],
        "unchanged": len(found) - len(undone) - len([c for c in changed if c.object_id in ids]),
    }
    emit(facts, as_json, _undone_text(facts))


def _undone_text(facts: Mapping[str, Any]) -> str:
    lines = [f"taken back and sent through the queue: {uri}" for uri in facts["sent_again"]]
    lines += [
        f"object {c['object_id']}: {c['was']} -> {c['outcome']} ({c['reason']})"
        for c in facts["decided_again"]
    ]
    if facts["unchanged"]:
        lines.append(f"{facts['unchanged']} versions decided again with the same outcome")
    return "\n".join(lines)


def switched_text(done: Switched) -> str:
    """A new generation in one paragraph."""
    return (
        f"{done.collection} is at generation {done.generation} (epsilon {done.epsilon:g}) since "
        f"seq {done.seq}: {done.kept} kept, {done.duplicate} duplicates; took "
        f"{done.seconds:.1f} s, decisions waited {done.lock_seconds * 1000:.0f} ms.\n"
        f"Back again: pixsift undo {done.collection}"
    )


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("deciding again", total=None)

        def report(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield report


def _check(epsilon: float) -> None:
    if not 0 <= epsilon <= 2:
        raise RequestError(f"--epsilon {epsilon:g}: a cosine distance lies between 0 and 2")


def _whatif_text(told: WhatIf) -> str:
    lines = [
        f"{told.collection} at seq {told.at_seq}, epsilon {told.epsilon_now:g} -> "
        f"{told.epsilon:g} (nothing was changed, {told.seconds:.1f} s):",
        f"  kept        {told.kept_now} -> {told.kept}",
        f"  duplicates  {told.duplicate_now} -> {told.duplicate}",
        f"  {told.newly_duplicate} kept ones would become duplicates, "
        f"{told.newly_kept} duplicates would be kept",
    ]
    for example in told.examples:
        distance = "" if example["distance"] is None else f"{example['distance']:.4f} "
        lines.append(
            f"    {example['from']} -> {example['to']}: {example['uri']}\n"
            f"      {distance}from {example['of']}"
        )
    return "\n".join(lines)
