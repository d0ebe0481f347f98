"""The ``pixsift`` command: one module per command group, all of them listed here.

A user's mistake is one line on stderr with the remedy, never a traceback; the exit status is 2
for a mistake, 3 for a dependency that does not answer, 1 for a check that found something.
"""

import sys
from importlib import import_module

import typer

from pixsift.errors import DependencyDownError, PixsiftError, RequestError, UserError
from pixsift.remedies import one_line
from pixsift_cli.common import printable
from pixsift_cli.local.loop import use_running_loop

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Sift robot camera images as they land in S3.")  # fmt: skip

COMMAND_MODULES = (
    "demo.command",
    "doctor",
    "calibrate",
    "local.command",
    "database",
    "collection",
    "upload",
    "status",
    "explain",
    "search",
    "generations",
    "choosing.select",
    "attributes",
    "choosing.snapshot",
    "erase",
    "quality.command",
    "audit",
    "reconcile",
    "dlq",
)
"""Modules of this package with a function ``register(app)``."""


@app.callback()
def _root() -> None:
    use_running_loop()


for _module in COMMAND_MODULES:
    import_module(f"pixsift_cli.{_module}").register(app)


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
    typer.echo(f"pixsift: {printable(one_line(error))}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
