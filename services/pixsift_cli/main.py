"""The ``pixsift`` command: every command by its name, loaded when it runs or its help is asked.

A user's mistake is one line on stderr with the remedy, never a traceback; the exit status is 2
for a mistake, 3 for a dependency that does not answer, 1 for a check that found something.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pixsift.errors import DependencyDownError, PixsiftError, RequestError, UserError
from pixsift.remedies import one_line
from pixsift_cli.terminal import say

COMMANDS: dict[str, tuple[str, str]] = {
    "curate": (
        "curate",
        "Judge a folder of images, choose the best, write a report; originals stay as they are.",
    ),
    "demo": (
        "demo.command",
        "Run pixsift on three simulated robots, take a snapshot, and verify the ledger.",
    ),
    "doctor": (
        "doctor",
        "Check every dependency and suggest fixes; exit status 1 when a check fails.",
    ),
    "calibrate": (
        "calibrate",
        "Measure precision and recall of near-duplicates against epsilon, and propose one.",
    ),
    "up": (
        "local.command",
        "Start the local loop and leave it running: AWS, ledger, consumer, curator, server.",
    ),
    "down": (
        "local.command",
        "Stop the local loop, and keep its ledger and objects for the next one.",
    ),
    "cost": (
        "cost",
        "Say what a month on AWS costs, line by line, and what a million images do.",
    ),
    "deploy": (
        "deploy",
        "Deploy a stage to AWS: images, stacks, migration, services, doctor; rerun to continue.",
    ),
    "migrate": (
        "database",
        "Apply the ledger's schema migrations.",
    ),
    "collection": (
        "collection",
        "Create, change and list collections: what is judged, and how.",
    ),
    "upload": (
        "upload",
        "Upload a folder; after an interruption, run it again to continue.",
    ),
    "status": (
        "status",
        "Show outcomes per collection, the backlog, the DLQ and anomalies.",
    ),
    "images": (
        "images",
        "List images by outcome, the newest decision first.",
    ),
    "explain": (
        "explain",
        "Show what happened to an object, and why: facts, decisions, representative, snapshots.",
    ),
    "rule": (
        "rule",
        "Overrule decisions: keep, same, not the same, useless.",
    ),
    "protect": (
        "protect",
        "Keep selections away from evaluation sets: snapshots, prefixes, folders.",
    ),
    "search": (
        "search",
        "Find the kept images nearest to your images (exact search by cosine distance).",
    ),
    "watch": (
        "watch",
        "Watch for images like some of yours as they arrive.",
    ),
    "coverage": (
        "coverage",
        "What a collection and a reference set lack; what of it is new.",
    ),
    "whatif": (
        "generations",
        "Show what another rule would change, without changing or embedding anything.",
    ),
    "redecide": (
        "generations",
        "Decide all images again with another rule, and switch to the result.",
    ),
    "reembed": (
        "reembed",
        "Embed and judge all images again with another model or recipe, and switch to the result.",
    ),
    "undo": (
        "generations",
        "Return to the previous generation, or undo the decision about one object.",
    ),
    "select": (
        "choosing.select",
        "Show which images a request would choose and how well they cover the pool; copy nothing.",
    ),
    "token": (
        "token",
        "Make, list and revoke tokens of the HTTP API.",
    ),
    "attributes": (
        "attributes",
        "Attributes of images: labels, sites, recordings.",
    ),
    "snapshot": (
        "choosing.snapshot",
        "Request, list, show and download snapshots.",
    ),
    "erase": (
        "erase",
        "Erase an image: vector, metrics, thumbnail, copies in snapshots; leave a tombstone.",
    ),
    "quality": (
        "quality.command",
        "Measure the images of a local folder and show what a collection's policy would say.",
    ),
    "cameras": (
        "quality.command",
        "Report frozen cameras and drifting exposure, from the metrics in the ledger.",
    ),
    "audit": (
        "audit",
        "Check every invariant of the ledger; exit status 1 when one is broken (after repair).",
    ),
    "reindex": (
        "audit",
        "Drop and rebuild a collection's HNSW index.",
    ),
    "reconcile": (
        "reconcile",
        "Compare the sources with the ledger; send missing and deleted objects to the queue.",
    ),
    "backfill": (
        "reconcile",
        "Send the existing objects of a bucket to the queue, many keys per message.",
    ),
    "dlq": (
        "dlq",
        "List and redrive the dead-letter queue and failed objects.",
    ),
}
"""Name of a command -> its module of this package, which has a function ``register(app)``; and its
line in the list of commands. A test compares both with the modules."""


class _LazyGroup(TyperGroup):
    """Lists commands from the table, and imports a module only for a command of it."""

    # Typer carries its own copy of click, under a private name, so the type is Any.

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, add_completion=False,
                  rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Sift robot camera images as they land in S3.")  # fmt: skip


@app.callback()
def _root() -> None:
    from pixsift_cli.wiring import use_running_loop

    use_running_loop()


_OF_FOLDERS = frozenset({
    "audit", "coverage", "explain", "images", "protect", "redecide", "rule", "search", "select",
    "status", "undo", "watch", "whatif",
})  # fmt: skip
"""Commands that also work on the embedded ledger of folders: they have ``--ledger``."""


def load(name: str) -> Any:
    """The command of that name, from its module."""
    command = load_module(COMMANDS[name][0])[name]
    if name in _OF_FOLDERS:
        for each in getattr(command, "commands", {"": command}).values():
            each.params.append(_ledger_option())
    return command


def _ledger_option() -> Any:
    own = typer.Typer(rich_markup_mode=None)
    own.command()(_with_ledger)
    command = typer.main.get_command(own)
    return next(each for each in command.params if each.name == "ledger")


def _use_ledger(folder: Path | None) -> None:
    from pixsift_cli.wiring import use_folder_ledger

    if folder is not None:
        use_folder_ledger(folder)


def _with_ledger(
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the ledger that pixsift curate wrote.",
            callback=_use_ledger,
            expose_value=False,
        ),
    ] = None,
) -> None:
    """Only its option is used."""


def load_module(module: str) -> dict[str, Any]:
    """Every command that a module of this package registers, by name."""
    own = typer.Typer(rich_markup_mode=None)
    import_module(f"pixsift_cli.{module}").register(own)
    return dict(typer.main.get_group(own).commands)


def main() -> None:
    """Run the command line; translate known errors into one line and an exit status."""
    try:
        app()
    except UserError as error:
        _fail(error, 2)
    except DependencyDownError as error:
        _fail(error, 3)
    except PixsiftError as error:
        _fail(error, 1)
    except UnicodeEncodeError as error:  # of an argument: the ledger holds none
        _fail(RequestError(f"{error.object[:200]!r} is not {error.encoding}"), 2)


def _fail(error: PixsiftError, status: int) -> None:
    say(f"pixsift: {one_line(error)}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
