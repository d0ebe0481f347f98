"""The console over a million images: what a person waits for, and a server that is killed."""

import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from moto import mock_aws
from playwright.sync_api import Page, expect

from console_world import running
from made_images import scene
from million_world import NAME, fill_million, serve_alone
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database
from server_world import aws, new_database, parts_over

pytestmark = pytest.mark.full
TILES_PER_SECOND = 60
SCROLL_SECONDS = 10
GROUPS = 200
FIGURES = Path(__file__).resolve().parents[3] / "build" / "console" / "scale.json"


def note(**figures: Any) -> None:
    """Keep what was measured, where the screenshots are."""
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps({**known, **figures}, indent=1))


@pytest.fixture(scope="module")
def ledger_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    with new_database(postgres, template_database) as url:
        begun = time.monotonic()
        fill_million(url)
        note(fill_seconds=round(time.monotonic() - begun, 1))
        yield url


@pytest.fixture(scope="module")
def million(ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the million is served; all images share one thumbnail."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        with mock_aws(), Database(ledger_url, max_connections=12) as database:
            aws()
            path = tmp_path_factory.mktemp("thumb") / "one.webp"
            scene("coffee.png").resize((256, 192)).save(path)
            boto3.client("s3").put_object(Bucket="derived", Key="t/one.webp",
                                          Body=path.read_bytes())  # fmt: skip
            parts = parts_over(
                database, needs_identity=False, host_names=frozenset({"127.0.0.1"}),
                is_cookie_secure=False,
            )  # fmt: skip
            with running(parts) as url:
                yield url


def test_browse__paints_within_a_second_and_a_half(
    million: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(million)  # the browser itself is warm, as that of a person is
    seconds = []
    for _ in range(3):
        page.goto("about:blank")
        begun = time.monotonic()
        page.goto(f"{million}/browse", wait_until="commit")
        page.wait_for_selector(".tile")
        seconds.append(time.monotonic() - begun)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    note(first_tile_seconds=seconds, first_contentful_paint_ms=painted)
    assert statistics.median(seconds) <= 1.5, seconds


_SCROLL = """async ([seconds, tilesPerSecond]) => {
    const box = document.querySelector('.grid .box');
    const lines = [...box.querySelectorAll('.line')];
    const columns = lines[0].children.length;
    const high = lines[1].getBoundingClientRect().top - lines[0].getBoundingClientRect().top;
    const speed = tilesPerSecond / columns * high;
    const frame = box.getBoundingClientRect();
    let blank = 0, waiting = 0, looked = 0, frames = 0;
    const begun = performance.now(), start = box.scrollTop;
    while (performance.now() - begun < 1000 * seconds) {
        await new Promise(requestAnimationFrame);
        box.scrollTop = start + speed * (performance.now() - begun) / 1000;
        frames += 1;
        let covered = 0;
        for (const cell of box.querySelectorAll('.cell')) {
            const at = cell.getBoundingClientRect();
            if (at.bottom < frame.top || at.top > frame.bottom) continue;
            looked += 1;
            covered += 1;
            if (!cell.querySelector('.tile')) blank += 1;
            const image = cell.querySelector('img');
            if (!image || !image.complete) waiting += 1;
        }
        if (!covered) blank += columns;
    }
    const tiles = Math.round((box.scrollTop - start) / high) * columns;
    return {blank, waiting, looked, frames, tiles, seconds};
}"""


def test_browse__scrolls_sixty_tiles_a_second_without_a_blank_one(
    million: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{million}/browse")
    page.wait_for_selector(".tile")
    page.wait_for_timeout(1500)
    found = page.evaluate(_SCROLL, [SCROLL_SECONDS, TILES_PER_SECOND])
    note(scroll=found)
    assert found["tiles"] >= 0.95 * TILES_PER_SECOND * SCROLL_SECONDS, found
    assert found["blank"] == 0, found


def test_rulings__take_fifty_milliseconds(million: str) -> None:
    rulings = f"{million}/v1/collections/{NAME}/rulings"
    took = []
    for number in range(41):
        uri = f"s3://raw/robot-{(4 * number + 402) % 50}/front/{4 * number + 402}.jpg"
        begun = time.monotonic()
        done = asked("POST", rulings, {"kind": "also_keep", "images": [uri], "why": "scale"})
        took.append(time.monotonic() - begun)
        assert done["changed"] == {"duplicate -> kept": 1}
    first, later = took[0], sorted(took[1:])
    note(first_ruling_seconds=first, ruling_ms_median=1000 * statistics.median(later),
         ruling_ms_p95=1000 * later[37])  # fmt: skip
    assert statistics.median(later) <= 0.05, took


def asked(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """What the server answers, as JSON."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        url, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        return json.loads(answer.read())


def test_review__two_hundred_groups_by_keyboard(
    million: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{million}/review")
    page.wait_for_selector(".pair img", timeout=60_000)
    heading = page.locator("section h2").first
    begun = time.monotonic()
    seen, said = set(), 0
    for number in range(GROUPS):
        expect(page.locator(".pair")).to_be_visible()
        seen.add(heading.inner_text())
        if number % 20 == 19:
            page.keyboard.press("n")
            expect(page.locator(".said")).to_contain_text("not the same", timeout=60_000)
            page.keyboard.press("u")
            expect(page.locator(".said")).to_contain_text("Taken back", timeout=60_000)
            said += 1
        before = heading.inner_text()
        page.keyboard.press("j")
        expect(heading).not_to_have_text(before, timeout=60_000)
    note(groups_reviewed=len(seen), groups_ruled=said, review_seconds=time.monotonic() - begun)
    # A group that was ruled about and put back may come again, in another place.
    assert len(seen) >= GROUPS - said


@contextmanager
def served_by_a_process(ledger_url: str) -> Iterator[tuple[int, str]]:
    """The server in a process of its own: its id, and where it answers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_alone, args=(ledger_url, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(120), "the server did not start"
        assert process.pid is not None
        yield process.pid, ours.recv()
    finally:
        process.kill()
        process.join(20)


def outcomes_below(url: str, prefix: str) -> list[tuple[int, str]]:
    """Outcomes that hold, of images below a prefix."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT object_id, outcome FROM decision JOIN object USING (object_id)"
            " WHERE valid_to_seq IS NULL AND starts_with(key, %s) ORDER BY 1", (prefix,),
        ).fetchall()  # fmt: skip


def test_bulk__a_server_killed_in_the_middle_leaves_all_of_it_or_nothing(ledger_url: str) -> None:
    prefix = "robot-7/"
    before = outcomes_below(ledger_url, prefix)
    ends = []
    for attempt, seconds in enumerate((1.0, 4.0, 12.0, 40.0)):
        with served_by_a_process(ledger_url) as (process_id, url):
            body = {"best": "newest", "why": "scale", "prefix": prefix, "dry_run": False}
            asking = subprocess.Popen(
                [sys.executable, "-c", "import sys,urllib.request as u;"
                 "u.urlopen(u.Request(sys.argv[1], data=sys.argv[2].encode(),"
                 " headers={'Content-Type': 'application/json'}))",
                 f"{url}/v1/collections/{NAME}/rulings/best", json.dumps(body)],
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(seconds)
            was_done = asking.poll() is not None
            os.kill(process_id, signal.SIGKILL)
            asking.wait(60)
        with psycopg.connect(ledger_url) as connection:
            row = connection.execute(
                "SELECT count(*), count(DISTINCT batch) FROM ruling"
                " WHERE why LIKE 'newest:%' AND valid_to_seq IS NULL"
            ).fetchone()
        assert row is not None
        ends.append((seconds, was_done, row))
        note(killed=[[s, done, list(found)] for s, done, found in ends])
        if row == (0, 0):
            assert outcomes_below(ledger_url, prefix) == before, attempt
            continue
        assert row[1] == 1  # one batch, and all of it
        changed = sum(one != other for one, other in
                      zip(before, outcomes_below(ledger_url, prefix), strict=True))  # fmt: skip
        assert changed >= row[0]
        break
    assert any(not done for _, done, _ in ends)
