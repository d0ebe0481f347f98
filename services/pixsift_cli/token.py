"""``pixsift token``: who may use the HTTP API."""

from typing import Annotated

import typer

from pixsift.api import ROLES, Role, TokenAsk
from pixsift.errors import RequestError
from pixsift.operations import access
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit

_DEFAULT_DAYS = 90.0

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke tokens of the HTTP API.")


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.add_typer(app, name="token")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    *,
    role: Annotated[
        str, typer.Option(help="viewer, reviewer or operator: each may do more than the last.")
    ] = "viewer",
    expires: Annotated[
        str, typer.Option(help="Days until it expires, such as 30; or never.")
    ] = f"{_DEFAULT_DAYS:g}",
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it once; only a hash of it is stored."""
    ask = TokenAsk(name=_checked_name(name), role=_role(role), expires_days=_days(expires))
    with wiring.database() as database:
        made = access.create_token(database, ask, actor=wiring.ACTOR)
    until = f"until {made.expires_at:%Y-%m-%d %H:%M %Z}" if made.expires_at else "for good"
    emit(made, as_json, f"{made.token}\n# {made.role} {made.name}, {until}; it is not shown again")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List every token, without its secret."""
    with wiring.database() as database:
        found = access.list_tokens(database)
    lines = [
        f"{each.token_id}  {each.role:<9} {each.name}"
        + (f", expires {each.expires_at:%Y-%m-%d}" if each.expires_at else "")
        + (f", revoked {each.revoked_at:%Y-%m-%d}" if each.revoked_at else "")
        for each in found.tokens
    ]
    emit(found, as_json, "\n".join(lines) or "no tokens")


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="Its id, as the list shows it.")],
    as_json: JsonOption = False,
) -> None:
    """End a token from the next request on."""
    with wiring.database() as database:
        ended = access.revoke_token(
            database, token_id, actor=wiring.ACTOR, journal=wiring.obligations(database)
        )
    emit(ended, as_json, f"revoked {ended.token_id} ({ended.name})")


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise RequestError(f"no role {text!r}: there are {', '.join(ROLES)}")


def _days(text: str) -> float | None:
    if text == "never":
        return None
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= 3650:
        raise RequestError(f"--expires {text!r}: give days between 0 and 3650, or never")
    return days


def _checked_name(name: str) -> str:
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise RequestError("the name of a token has 1 to 100 printable characters")
    return name
