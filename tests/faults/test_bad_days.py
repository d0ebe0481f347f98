"""Bad days: outages of every kind, a full log disk, a newer release, threads and servers that hang.

Whatever fails, no healthy message ends in the DLQ, none becomes ``failed``, and work goes on soon
after.
"""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from faults.consumer_process import wait_until
from faults.harness import running
from faults.images import jpeg
from faults.outage_cases import CASES, Case, page
from faults.scene import scene
from faults.small_disk import fill, small_disk
from faults.stub_aws import RAW, Fault, StubAws
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.migrate import migrate
from pixsift.core.sources import SourceRule
from pixsift.threads import STOPPED_LATE, THREAD_DIED

IMAGES = 12


def test_page__is_the_table_of_the_cases() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs" / "outages.md"
    assert docs.read_text("utf-8") == page(), "python -m faults.outage_cases writes it"


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.name, marks=[pytest.mark.full] if c.full else []) for c in CASES],
)
def test_consumer__an_outage_costs_no_image(case: Case, database_url: str) -> None:
    """Two receives, and the queue would move a message to its DLQ."""
    with StubAws(max_receive_count=2 if case.name != "sqs-send" else 6) as aws:
        other = aws.s3.create("other", versioned=True, notify=aws.ingest.send)
        rules = [SourceRule(RAW), SourceRule("other")]
        with running(aws, database_url, rule=rules) as consumer:
            aws.raw.put("first.jpg", jpeg(1))
            if case.another_bucket:
                other.put("first.jpg", jpeg(2))
            consumer.wait_until_drained()
            with case.outage(aws, database_url):
                for number in range(IMAGES):
                    aws.raw.put(f"{number}.jpg", jpeg(10 + number))
                    if case.another_bucket:
                        other.put(f"{number}.jpg", jpeg(100 + number))
                started = time.monotonic()
                if case.another_bucket:
                    consumer.wait(lambda: len(consumer.outcomes()) == IMAGES + 2, seconds=90)
                time.sleep(max(0.0, case.seconds - (time.monotonic() - started)))
                assert not aws.dlq.messages
            consumer.wait_until_drained(seconds=60)
            expected = (IMAGES + 1) * (2 if case.another_bucket else 1)
            assert Counter(consumer.outcomes().values()) == {("kept", "new"): expected}


@pytest.mark.full
def test_consumer__a_thousand_waiting_messages_are_decided_within_a_minute(
    database_url: str,
) -> None:
    outage = Fault("GetObject", 503, "SlowDown")
    with StubAws(max_receive_count=2) as aws, running(aws, database_url) as consumer:
        aws.raw.put("first.jpg", jpeg(1))
        consumer.wait_until_drained()
        aws.faults.append(outage)
        for number in range(1000):
            aws.raw.put(f"{number}.jpg", jpeg(10 + number))
        time.sleep(100)
        aws.faults.clear()
        consumer.wait_until_drained(seconds=60)
        assert Counter(consumer.outcomes().values()) == {("kept", "new"): 1001}


@pytest.mark.full
def test_consumer__postgres_with_a_full_disk(tmp_path: Path) -> None:
    with small_disk(400) as disk, EmbeddedPostgres(disk / "pg") as server:
        migrate(server.url())
        with StubAws(max_receive_count=2) as aws, running(aws, server.url()) as consumer:
            aws.raw.put("first.jpg", jpeg(1))
            consumer.wait_until_drained()
            filler = fill(disk)
            for number in range(60):
                aws.raw.put(f"{number}.jpg", jpeg(10 + number))
            time.sleep(60)
            assert not aws.dlq.messages
            filler.unlink()
            consumer.wait_until_drained(seconds=90)
            assert Counter(consumer.outcomes().values()) == {("kept", "new"): 61}


def test_consumer__a_full_log_disk_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """Every line of the log fails to be written; messages are acknowledged all the same."""
    with scene(database_url, tmp_path) as place:
        for number in range(8):
            place.put(f"new-{number}", jpeg(number), "kept")
        with place.consumer(PIXSIFT_LOG_LEVEL="DEBUG", log=Path("/dev/full")) as consumer:
            wait_until(lambda: place.aws.is_drained, seconds=90, what=place.report)
            time.sleep(12)  # long enough for metrics to be written
            place.put("later", jpeg(99), "kept")
            wait_until(lambda: place.aws.is_drained, seconds=60, what=place.report)
            assert consumer.process.poll() is None
        assert place.found() == place.expected


def test_consumer__a_policy_of_a_newer_release_stops_nobody(database_url: str) -> None:
    with StubAws() as aws, running(aws, database_url) as consumer:
        with psycopg.connect(database_url) as connection:
            connection.execute(
                """UPDATE collection SET quality_policy = '{"sparkle": "reject", "dark": "off"}'"""
            )
        time.sleep(6)  # collections are read again every five seconds
        for number in range(5):
            aws.raw.put(f"{number}.jpg", jpeg(number))
        consumer.wait_until_drained()
        assert Counter(consumer.outcomes().values()) == {("kept", "new"): 5}


@pytest.mark.parametrize("thread", ["housekeeping", "heartbeat", "probes", "commit"])
def test_consumer__no_thread_dies_alone(thread: str, database_url: str, tmp_path: Path) -> None:
    """An exception that escapes from a thread ends the process, with a status of its own."""
    with scene(database_url, tmp_path) as place:
        place.put("new", jpeg(1), "kept")
        with place.consumer("faults.dying_thread", PIXSIFT_TEST_DYING=thread) as consumer:
            assert consumer.process.wait(90) == THREAD_DIED, place.report()
        assert "a thread died" in place.report()
        place.settle()


def test_consumer__sigterm_does_not_wait_for_a_database_that_hangs(
    database_url: str, tmp_path: Path
) -> None:
    """Its backends are stopped as a frozen host would be: no error, no answer."""
    with scene(database_url, tmp_path) as place:
        with place.consumer(PIXSIFT_STOP_SECONDS="0.5") as consumer:
            place.put("first", jpeg(1), "kept")
            wait_until(lambda: place.aws.is_drained, seconds=90, what=place.report)
            with psycopg.connect(database_url) as connection:
                rows = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'pixsift'"
                ).fetchall()
            for (backend,) in rows:
                os.kill(backend, signal.SIGSTOP)
            try:
                place.put("second", jpeg(2), "kept")
                time.sleep(3)
                assert consumer.stop(seconds=30) in (0, STOPPED_LATE)
            finally:
                for (backend,) in rows:
                    os.kill(backend, signal.SIGCONT)
        place.settle()
