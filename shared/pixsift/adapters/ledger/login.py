"""How a process logs in to its ledger: a URL, a secret that may rotate, or an IAM token.

Secret and token are asked for before every connection, since both age: a token after 15 minutes,
a secret when its owner says so. Neither is ever logged.
"""

import json
from collections.abc import Callable
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pixsift.adapters.aws.client import aws_errors, plain_client
from pixsift.adapters.postgres.database import Login, readable_url
from pixsift.errors import Remedy, SettingError

_PARTS = {
    "username": "user", "password": "password", "host": "host", "port": "port", "dbname": "dbname",
}  # fmt: skip
"""What the secrets of RDS call them, and what libpq does."""


def ledger_login(url: str, *, secret: str = "", iam: bool = False, client: Any = None) -> Login:
    """What to give ``Database``. client: of Secrets Manager or RDS, for tests.

    Raises SettingError when nothing says where the ledger is, or two ways to log in are set.
    """
    if secret and iam:
        raise SettingError("set PIXSIFT_DATABASE_SECRET or PIXSIFT_DATABASE_IAM, not both")
    if secret:
        return _secret_login(url, secret, client)
    if not url:
        raise SettingError("no ledger is set", code="no_ledger", remedy=Remedy("set_database_url"))
    return _iam_login(url, client) if iam else url


def _secret_login(url: str, secret: str, given: Any) -> Callable[[], str]:
    client = given or plain_client("secretsmanager")
    if url:
        readable_url(url)

    def login() -> str:
        with aws_errors(f"secret {secret}"):
            text = client.get_secret_value(SecretId=secret)["SecretString"]
        return make_conninfo(url, **_connection_parts(text, secret))

    return login


def _connection_parts(text: str, secret: str) -> dict[str, str]:
    try:
        document = json.loads(text)
        parts = {
            ours: str(document[theirs]) for theirs, ours in _PARTS.items() if theirs in document
        }
        _ = parts["user"], parts["password"]
    except (ValueError, TypeError, KeyError):
        raise SettingError(
            f"secret {secret} holds no JSON with username and password: check "
            "PIXSIFT_DATABASE_SECRET"
        ) from None
    return parts


def _iam_login(url: str, given: Any) -> Callable[[], str]:
    parts = conninfo_to_dict(readable_url(url))
    if not (parts.get("host") and parts.get("user")):
        raise SettingError("PIXSIFT_DATABASE_IAM needs host and user in PIXSIFT_DATABASE_URL")
    client = given or plain_client("rds")

    def login() -> str:
        with aws_errors("IAM token for PostgreSQL"):
            token = client.generate_db_auth_token(
                DBHostname=parts["host"],
                Port=int(parts.get("port") or 5432),
                DBUsername=parts["user"],
            )
        return make_conninfo(url, password=token)

    return login
