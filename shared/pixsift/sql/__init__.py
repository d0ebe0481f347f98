"""Named statements from the ``.sql`` files of this folder.

A statement begins at a line ``-- name: some_name`` and runs to the next one; the comment lines
below the name say why it is as it is. A placeholder is ``%(x)b`` where the value goes in binary
(arrays of a batch, vectors), and ``%(x)s`` where psycopg may choose.

One layout: each clause starts a line, in the column of its statement or of its subquery's SELECT;
``AND``, ``OR`` and ``ON`` are two columns further in. No semicolon ends a statement. Lines have at
most 100 characters. ``tests/house/test_sql_layout.py`` checks it.
"""

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, LiteralString]:
    """All statements of ``file`` (without ``.sql``) by name; a repeated name is a ValueError."""
    text = files(__name__).joinpath(f"{file}.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    names, bodies = parts[0::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{file}.sql names a statement twice")
    # The files ship with the package: their text is as trusted as this code.
    return {
        name: cast(LiteralString, body.strip()) for name, body in zip(names, bodies, strict=True)
    }
