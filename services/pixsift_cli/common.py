"""What every command needs: settings, and facts printed for people or as JSON."""

import json
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pixsift.adapters.postgres.database import Database
from pixsift.config import DatabaseSettings
from pixsift.core.identity import S3Uri
from pixsift.errors import Remedy, RequestError, SettingError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls, changes of direction, and bytes of a name that are no UTF-8."""


def database_url() -> str:
    """The ledger's URL from the settings. Raises UserError when there is none."""
    url = DatabaseSettings().database_url.get_secret_value()
    if not url:
        raise SettingError("no ledger is set", code="no_ledger", remedy=Remedy("set_database_url"))
    return url


def open_database() -> Database:
    """The ledger's database; a context manager."""
    return Database(database_url(), max_connections=4, session={"statement_timeout": "10min"})


def s3_uri(text: str) -> S3Uri:
    """``s3://bucket/key?versionId=...``; raises UserError for anything else."""
    try:
        text.encode()
        return S3Uri.parse(text)
    except UnicodeEncodeError as error:
        raise RequestError(f"{text!r} is no S3 URI: keys are UTF-8") from error
    except ValueError as error:
        raise RequestError(f"{text!r} {error}") from error


def no_nan(value: float) -> float:
    """Callback of an option: NaN lies between every minimum and maximum."""
    if math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value


def check_writable(*paths: Path | None) -> None:
    """Before the work whose result is written there. Raises UserError."""
    for path in paths:
        if path is None:
            continue
        there = path if path.exists() else path.absolute().parent
        if path.is_dir() or not os.access(there, os.W_OK):
            raise RequestError(
                f"cannot write {str(path)!r}: name a file in a folder that exists and is yours"
            )


def write_text(path: Path, text: str) -> None:
    """A file name need not be valid UTF-8; what is not is written as an escape. UserError."""
    try:
        path.write_text(text, "utf-8", "backslashreplace")
    except OSError as error:
        raise RequestError(f"cannot write {str(path)!r}: {error.strerror}") from error


def printable(text: str) -> str:
    """With escapes for what a terminal would obey; lines stay lines."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def emit(facts: Any, as_json: bool, text: str) -> None:
    """Print ``facts`` as JSON, or ``text`` for people."""
    typer.echo(json.dumps(facts, indent=2, default=str) if as_json else printable(text))
