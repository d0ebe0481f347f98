"""The server as a process of its own would run: over sockets, with its stream and its client."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI

from faults import consumer_process
from faults.consumer_process import ConsumerProcess
from faults.stub_aws import StubAws
from ledger_world import image, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.client import Client, ProblemError, arrow, frame
from pixsift.operations.events import Cursor
from pixsift.telemetry import make_logger
from pixsift_server.app import make_app
from server_world import World, new_database, parts_over, served
from serving import serving, wait_until


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template_database: str) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with new_database(postgres, template_database) as url, served(url) as made:
            yield made


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    """Where a real uvicorn answers."""
    parts = parts_over(world.parts.database, host_names=frozenset({"127.0.0.1"}))
    with serving(make_app(parts, make_logger("test", "ERROR"))) as found:
        yield found


@pytest.fixture
def client(url: str, world: World) -> Iterator[Client]:
    with Client(url, world.tokens["operator"], timeout_seconds=30) as opened:
        yield opened


def test_client__reads_searches_rules_and_chooses(client: Client) -> None:
    assert [c.name for c in client.collections().collections] == ["c"]
    kept = list(client.images("c", outcome="kept", limit=1))
    table = arrow(client.images("c"))
    assert table.num_rows >= len(kept) and {"uri", "outcome", "flags"} <= set(table.column_names)
    assert len(frame(kept)) == len(kept)
    assert len(kept) == 3
    (group,) = client.groups("c")
    assert group.duplicates == 2
    (story,) = client.explain("s3://raw/r1/near.jpg")
    assert story.sentences["c"].startswith("Duplicate of")
    found = client.search("c", like=[story.object_id], k=1)
    assert found.hits[0].uri == "s3://raw/r1/a.jpg?versionId=v1"
    tried = client.rule("c", "also_keep", ["s3://raw/r1/near.jpg"], why="try", dry_run=True)
    assert tried.changed == {"duplicate -> kept": 1}
    picks = client.select({"collection": "c", "name": "t", "select": {"strategy": "all"}})
    assert len(picks.images) == 3
    with pytest.raises(ProblemError) as refused:
        client.collection("none")
    assert (refused.value.status, refused.value.code) == (404, "unknown_collection")


def test_events__tell_what_happens_resume_and_say_when_history_is_lost(
    client: Client, world: World
) -> None:
    stream = client.events()
    first_id, hello, _ = next(stream)
    assert hello == "hello"
    ledger = Ledger(world.parts.database)
    ledger.commit(ledger.collection("c"), [image("r3/new.jpg", turned(135))])
    seen_id, decided = until(stream, "decisions")
    assert decided["counts"] == {"kept": 1}
    assert [row["uri"] for row in decided["images"]] == ["s3://raw/r3/new.jpg?versionId=v1"]
    stream.close()  # type: ignore[attr-defined]

    # A reader that reconnects gets what it missed, each event once.
    ledger.commit(ledger.collection("c"), [image("r3/more.jpg", turned(160))])
    stream = client.events(last_event_id=seen_id)
    _, missed = until(stream, "decisions")
    assert [row["uri"] for row in missed["images"]] == ["s3://raw/r3/more.jpg?versionId=v1"]
    assert missed["from_seq"] == decided["to_seq"]
    stream.close()  # type: ignore[attr-defined]

    # Of another history: what the reader knows at that seq has another token now.
    with psycopg.connect(world.parts.database.url, autocommit=True) as connection:
        connection.execute("UPDATE turn SET token = gen_random_uuid() WHERE seq = %s",
                           [decided["to_seq"]])  # fmt: skip
    stream = client.events(last_event_id=seen_id)
    _, lost = until(stream, "history_lost")
    assert lost["collection"] == "c" and lost["seq"] == missed["to_seq"]
    stream.close()  # type: ignore[attr-defined]
    assert Cursor.decoded(first_id).collections["c"][0] < decided["to_seq"]


def test_watches__begin_match_on_arrival_and_tell_in_the_stream(
    client: Client, world: World
) -> None:
    begun = client.watch("like b", like=["s3://raw/r2/b.jpg"], max_distance=0.2, collection="c")
    assert [w.watch_id for w in client.watches("c")] == [begun.watch_id]
    stream = client.events()
    next(stream)
    ledger = Ledger(world.parts.database)
    ledger.commit(ledger.collection("c"), [image("r5/like-b.jpg", turned(112))])
    seen_id, told = until(stream, "watch_hits")
    assert told["counts"] == [{"watch_id": begun.watch_id, "watch": "like b", "hits": 1}]
    assert [hit["uri"] for hit in told["hits"]] == ["s3://raw/r5/like-b.jpg?versionId=v1"]
    stream.close()  # type: ignore[attr-defined]
    # A break right behind it: the decisions of the same turns come, and the hits once more.
    stream = client.events(last_event_id=seen_id)
    _, again = until(stream, "watch_hits")
    assert again["to_seq"] == told["to_seq"]
    assert until(stream, "decisions")[1]["to_seq"] == told["to_seq"]
    stream.close()  # type: ignore[attr-defined]
    assert client.run_watch(begun.watch_id).added == 1
    assert len(list(client.watch_hits(begun.watch_id))) == 2
    tried = client.try_watch(like=["s3://raw/r2/b.jpg"], max_distance=2, collection="c")
    assert tried.matching == tried.compared
    assert client.end_watch(begun.watch_id).state == "ended"


@pytest.mark.parametrize("text", ["nonsense", "%00", "e30", "W10", "\u00e9"])
def test_events__a_cursor_that_is_not_ours_is_refused_or_empty(client: Client, text: str) -> None:
    answer = client._http.get("/v1/events", params={"since": text}) if text != "e30" else None
    if answer is not None:
        assert answer.status_code == 400


def until(stream: Iterator[tuple[str, str, Any]], wanted: str) -> tuple[str, Any]:
    for number, (event_id, event, data) in enumerate(stream):
        if event == wanted:
            return event_id, data
        assert number < 20, f"no event {wanted}"
    raise AssertionError("the stream ended")


def test_serving__leaves_no_connection_open_that_came_while_it_stopped() -> None:
    """uvicorn alone leaves some open, and a browser then waits forever for an answer."""
    made: list[socket.socket] = []

    def connect(port: int) -> None:
        with contextlib.suppress(OSError):  # refused: it has stopped
            for _ in range(250):
                made.append(socket.create_connection(("127.0.0.1", port), timeout=60))

    with contextlib.ExitStack() as stack:
        with serving(FastAPI()) as url:
            port = int(url.rsplit(":", 1)[1])
            threads = [threading.Thread(target=connect, args=(port,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait_until(lambda: len(made) > 20, "no connection was accepted")
        for thread in threads:
            thread.join(60)
        for each in made:
            stack.enter_context(each).settimeout(60)
        for each in made:
            with contextlib.suppress(ConnectionError):
                assert each.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server__ends_with_status_0_after_a_signal(
    database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "server.log"
    with StubAws() as aws:
        environment = {**aws.environment(), "PIXSIFT_DATABASE_URL": database_url,
                       "PIXSIFT_SERVER_PORT": "0"}  # fmt: skip
        with ConsumerProcess(environment, log=log, module="pixsift_server.main") as server:
            consumer_process.wait_until(
                lambda: "server ready" in server.log_text(), seconds=120, what=server.log_text
            )
            server.process.send_signal(number)
            assert server.process.wait(60) == 0
            assert "server stopped" in server.log_text()
