"""The console in a real browser, over a real server, a real ledger and real pictures.

Screenshots of every screen are left in build/console, for a person to look at.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console_world import EMOJI, HTML, TERMINAL, ConsoleWorld, running, served_console
from ledger_world import DIMENSION, unit
from made_images import scene
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift_server.page import STATIC
from server_world import new_database, parts_over

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "services/pixsift_server/console/node_modules/axe-core/axe.min.js"
SHOTS = ROOT / "build" / "console"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENS = {
    "live": ("/", "section.kept li"),
    "browse": ("/browse", ".tile"),
    "image": ("/image/DUPLICATE", ".pair img"),
    "duplicates": ("/duplicates", ".pair img"),
    "snapshots": ("/snapshots", "table"),
    "snapshot": ("/snapshots/november", ".items img"),
    "queues": ("/operations", ".queues"),
    "not-decided": ("/operations?tab=undecided", "table"),
    "rules": ("/operations?tab=rules", "table"),
    "history": ("/operations?tab=history", "table"),
    "cameras": ("/operations?tab=cameras", "table"),
}
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif(not (STATIC / "index.html").exists(),
                       reason="the console is not built: make console"),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template_database: str) -> Iterator[ConsoleWorld]:
    """One server over one ledger for all tests; they add to it and change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        with new_database(postgres, template_database) as url, served_console(url) as made:
            yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Pages that may say nothing on their console, ask no other host and run no foreign script."""
    troubles: list[str] = []
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US",
                                      timezone_id="UTC", **options)  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda said: troubles.append(said.text)
                if "Content Security Policy" in said.text else None)  # fmt: skip
        page.on("request", lambda asked: troubles.append(f"asked {asked.url}")
                if "//127.0.0.1:" not in asked.url else None)  # fmt: skip
        return page

    yield make
    for context in contexts:
        context.close()
    assert troubles == []


def id_of(world: ConsoleWorld, **condition: str) -> int:
    """Some image with an outcome or a prefix."""
    with world.parts.database.connection() as connection:
        row = connection.execute(
            "SELECT object_id FROM decision JOIN object USING (object_id)"
            " WHERE valid_to_seq IS NULL"
            " AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s AND reason = 'near')"
            " AND (%(key)s::text IS NULL OR key = %(key)s) ORDER BY object_id DESC LIMIT 1",
            {"outcome": None, "key": None, **condition},
        ).fetchone()
    assert row is not None
    return int(row[0])


def show(page: Page, world: ConsoleWorld, name: str) -> None:
    """Go to a screen and wait until its pictures are there."""
    path, landmark = SCREENS[name]
    path = path.replace("DUPLICATE", str(id_of(world, outcome="duplicate")))
    page.goto(world.url + path)
    page.wait_for_selector(landmark)
    page.wait_for_function(
        "() => [...document.images].every("
        "i => i.complete || i.getBoundingClientRect().top > innerHeight)"
    )


DARK = ("live", "browse", "image", "duplicates")
"""Colors are what differs, and these four have all of them."""


@pytest.mark.parametrize(("theme", "names"), [("light", tuple(SCREENS)), ("dark", DARK)])
def test_screens__each_is_whole_and_has_no_serious_barrier(
    world: ConsoleWorld, new_page: Callable[..., Page], theme: str, names: tuple[str, ...]
) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page = new_page(color_scheme=theme, reduced_motion="reduce")
    barriers = {}
    for name in names:
        show(page, world, name)
        page.screenshot(path=SHOTS / f"{name}-{theme}.png")
        expect(page.locator("[role=alert]")).to_have_count(0)
        barriers[name] = serious(page)
    assert {name: found for name, found in barriers.items() if found} == {}


def serious(page: Page) -> list[str]:
    """What axe-core (MPL-2.0; used here only, never shipped) finds, if it matters."""
    assert AXE.exists(), "axe-core is missing: make console"
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:160]} ({len(each['nodes'])})"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("key", [HTML, TERMINAL, EMOJI])
def test_names__are_shown_and_never_obeyed(
    world: ConsoleWorld, new_page: Callable[..., Page], key: str
) -> None:
    page = new_page()
    page.goto(f"{world.url}/browse?attribute=robot%3Drobot-4")
    expect(page.locator(".tile")).to_have_count(3)
    page.goto(f"{world.url}/image/{id_of(world, key=key)}")
    heading = page.locator("h1")
    expect(heading).to_contain_text(".jpg")
    assert page.title() == "Browse · pixsift"
    assert page.locator("main b", has_text="bold").count() == 0
    shown = page.locator("main").inner_text()
    assert not {"\x1b", "\u202e"} & set(shown)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_browse__filters_live_in_the_address_and_back_returns_to_the_place(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/browse")
    page.get_by_role("button", name="Duplicates").click()
    expect(page).to_have_url(f"{world.url}/browse?outcome=duplicate")
    page.get_by_role("button", name="robot-2").click()
    expect(page.locator(".tile:not(.duplicate)")).to_have_count(0)
    address = page.url
    box = page.locator(".grid .box")
    page.set_viewport_size({"width": 1440, "height": 600})
    expect(page.locator(".tile").nth(6)).to_be_visible()
    box.evaluate("box => box.scrollTo(0, 200)")
    page.wait_for_function("() => document.querySelector('.grid .box').scrollTop > 0")
    page.wait_for_timeout(200)
    place = box.evaluate("box => box.scrollTop")
    names = page.locator(".tile .name").all_inner_texts()
    page.locator(".tile").nth(6).click()
    expect(page.locator("h1")).not_to_have_text("Browse")
    page.go_back()
    expect(page).to_have_url(address)
    expect(page.locator(".tile .name").first).to_be_visible()
    assert page.locator(".tile .name").all_inner_texts() == names
    assert box.evaluate("box => box.scrollTop") == place
    page.reload()
    expect(page.locator(".tile.duplicate").first).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.locator(".tile.kept").first).to_be_visible()


def test_browse__shows_the_collection_as_it_was(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/browse?as_of=1")
    expect(page.locator(".tile")).to_have_count(1)
    page.get_by_role("button", name="As of").click()
    page.get_by_role("button", name="Back to now").click()
    expect(page.locator(".tile").nth(3)).to_be_visible()
    page.goto(f"{world.url}/browse?prefix=no-such")
    expect(page.get_by_role("heading", name="No image fits")).to_be_visible()
    page.goto(f"{world.url}/browse?as_of=999999999")
    expect(page.get_by_role("alert")).to_contain_text("future")


def test_keys__are_those_that_the_help_shows_and_each_does_it(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/browse")
    page.wait_for_selector(".tile")
    press = page.keyboard.press
    press("?")
    shown = page.locator("dialog dt").all_inner_texts()
    assert len(shown) >= 18, shown
    press("g")
    press("d")  # keys belong to the dialog now
    expect(page.locator("dialog")).to_be_visible()
    press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    press("ArrowRight")
    press("ArrowDown")
    focused = page.evaluate("Number(document.activeElement.dataset.index)")
    assert focused > 1
    press("Enter")
    expect(page).to_have_url(below(world, "/image/"))
    first = page.url
    press("ArrowRight")
    page.wait_for_function(f"() => location.href != {json.dumps(first)}")
    press("ArrowLeft")
    expect(page).to_have_url(first)
    press("Escape")
    expect(page).to_have_url(f"{world.url}/browse")
    press("/")
    press("g")  # typed, not a key
    assert page.evaluate("document.activeElement.id") == "prefix"
    press("Escape")
    for letter, name in (("l", "Live"), ("d", "Duplicates"), ("s", "Snapshots"),
                         ("o", "Operations"), ("b", "Browse")):  # fmt: skip
        press("g")
        press(letter)
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    press("t")
    press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def below(world: ConsoleWorld, path: str) -> Any:
    """A pattern for addresses below a path."""
    return re.compile(re.escape(world.url + path) + ".*")


def test_duplicates__are_gone_through_by_keyboard(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/duplicates")
    page.wait_for_selector(".pair img")
    press = page.keyboard.press
    for index in range(1, 6):
        press("j")
        expect(page.locator("aside [aria-pressed=true]")).to_have_count(1)
        at = (
            "[...document.querySelectorAll('aside .group')].findIndex(g => g.ariaPressed == 'true')"
        )
        page.wait_for_function(f"() => {at} == {index}")
    press("k")
    page.wait_for_function(f"() => {at} == 4")
    press("b")
    expect(page.locator(".pair.blink")).to_be_visible()
    hidden = page.locator(".pair figure.away figcaption b")
    before = hidden.text_content()
    page.wait_for_function(
        "before => document.querySelector('figure.away figcaption b').textContent != before",
        arg=before,
    )
    press("b")
    expect(page.locator(".pair.beside")).to_be_visible()


def test_image__marks_what_is_new_and_says_where_it_stands(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    with world.parts.database.connection() as connection:
        (changed,) = connection.execute(
            "SELECT object_id FROM object WHERE key LIKE '%coffee%/002.jpg' LIMIT 1"
        ).fetchone() or (None,)
    page.goto(f"{world.url}/image/{changed}")
    mark = page.locator(".pair figure").first.locator(".mark")
    expect(mark).to_have_count(1)
    box, frame = mark.bounding_box(), page.locator(".pair .frame").first.bounding_box()
    assert box and frame
    middle = (box["x"] + box["width"] / 2 - frame["x"]) / frame["width"]
    assert abs(middle - 180 / 256) < 0.03  # where the test painted it
    expect(page.locator("p.verdict")).to_contain_text("near-duplicate")
    page.goto(f"{world.url}/image/{id_of(world, key='robot-3/right/odd.jpg')}")
    expect(page.locator("p.verdict")).to_contain_text("Failed: every attempt failed")
    for wrong in ("987654321", "not-a-number", "1e99"):
        page.goto(f"{world.url}/image/{wrong}")
        expect(page.get_by_role("heading", name="There is no such image")).to_be_visible()


def arrival(world: ConsoleWorld, name: str) -> None:
    """One more kept image."""
    seed = sum(name.encode())
    vector = unit(*np.random.default_rng(seed).normal(size=DIMENSION))
    picture = scene("coffee.png").resize((96, 72)).rotate(seed % 360)
    world.commit(world.put(f"robot-9/front/{name}.jpg", picture, vector))


def test_live__shows_arrivals_pauses_and_misses_nothing_while_the_server_is_away(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    newest = page.locator("section.kept li a").first
    with running(world.parts) as url:
        page.goto(url)
        newest.wait_for()
        arrival(world, "one")
        expect(newest).to_have_attribute("title", "one.jpg")
        page.keyboard.press(" ")
        arrival(world, "two")
        expect(page.get_by_role("status").first).to_contain_text("1 new image waiting")
        expect(newest).to_have_attribute("title", "one.jpg")
        page.keyboard.press(" ")
        expect(newest).to_have_attribute("title", "two.jpg")
    expect(page.locator(".banner")).to_contain_text("connection to the server is lost")
    arrival(world, "three")
    arrival(world, "four")
    with running(world.parts, int(url.rsplit(":", 1)[1])):
        expect(page.locator(".banner")).to_have_count(0)
        expect(newest).to_have_attribute("title", "four.jpg")
        titles = page.locator("section.kept li a")
        assert [titles.nth(i).get_attribute("title") for i in range(4)] == [
            f"{name}.jpg" for name in ("four", "three", "two", "one")
        ]


def test_entry__asks_for_a_token_and_for_another_when_it_has_ended(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    closed = parts_over(world.parts.database, host_names=frozenset({"127.0.0.1"}),
                        is_cookie_secure=False)  # fmt: skip
    with running(closed) as url:
        page.goto(f"{url}/browse?outcome=kept")
        expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / "entry-light.png")
        page.get_by_label("Token").fill("px_wrong")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
        page.get_by_label("Token").fill(world.tokens["viewer"])
        page.get_by_role("button", name="Enter").click()
        expect(page.locator(".tile.kept").first).to_be_visible()
        page.context.add_cookies([{"name": "pixsift_session", "value": "px_00_old", "url": url}])
        page.locator(".tile").first.click()
        expect(page.get_by_role("heading", name="Your session has ended")).to_be_visible()
        page.get_by_label("Token").fill(world.tokens["operator"])
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("heading", name="History")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
