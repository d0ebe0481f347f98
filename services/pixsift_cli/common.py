"""Used by every command: options, checks of values, answers as text or JSON."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from pixsift.core.files import shown
from pixsift.core.identity import S3Uri
from pixsift.errors import RequestError
from pixsift_cli.terminal import say

Answer = BaseModel | Sequence[BaseModel]
"""The answer of a command: always typed, so that its JSON has a schema."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def s3_uri(text: str) -> S3Uri:
    """``s3://bucket/key?versionId=...``; raises UserError for anything else."""
    try:
        text.encode()
        return S3Uri.parse(text)
    except UnicodeEncodeError as error:
        raise RequestError(f"{text!r} is not a valid S3 URI: keys must be valid UTF-8") from error
    except ValueError as error:
        raise RequestError(f"{text!r} {error}") from error


def no_nan(value: float) -> float:
    """Callback of an option: refuses NaN, which passes every minimum and maximum."""
    if math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


def check_writable(*paths: Path | None) -> None:
    """Check an output file before the work whose result is written there. Raises UserError."""
    for path in paths:
        if path is None:
            continue
        there = path if path.exists() else path.absolute().parent
        if path.is_dir() or not os.access(there, os.W_OK):
            raise RequestError(f"cannot write {str(path)!r}: name a file in a writable folder")


def write_text(path: Path, text: str) -> None:
    """Write text that may contain file names: bytes that are not UTF-8 become escapes. Raises
    UserError."""
    try:
        path.write_text(text, "utf-8", "backslashreplace")
    except OSError as error:
        raise RequestError(f"cannot write {str(path)!r}: {error.strerror}") from error


def emit(facts: Answer, as_json: bool, lines: str | Iterable[str]) -> None:
    """Print ``facts`` as JSON, or ``lines`` for people.

    lines: a str is one line.
    """
    if as_json:
        emit_json(facts)
    else:
        say(lines)


def emit_json(facts: Answer) -> None:
    """Print ``facts`` as JSON, in ASCII: its escapes are those of JSON."""
    say(json.dumps(plain(facts), indent=2, default=str).split("\n"))


def plain(facts: Answer) -> Any:
    """An answer as JSON values."""
    if isinstance(facts, BaseModel):
        return facts.model_dump()
    return [plain(each) for each in facts]


def short_uris(uris: Sequence[str]) -> list[str]:
    """URIs without version ids, except where two of them are versions of one key; files by their
    paths."""
    keys = [uri.partition("?versionId=")[0] for uri in uris]
    times = Counter(keys)
    return [shown(key if times[key] == 1 else uri) for key, uri in zip(keys, uris, strict=True)]


def warn(warning: str | None) -> None:
    """Print a warning on standard error, if there is one."""
    if warning:
        say(f"warning: {warning}", err=True)
