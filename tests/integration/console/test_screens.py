"""Every screen of the console in a real browser, over a real server, a real ledger and pictures.

Screenshots of every screen are left in build/console, for a person to look at.
"""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from console_pages import (
    SCREENS,
    SHOTS,
    arrival,
    below,
    id_of,
    press_one_after_the_other,
    serious,
    show,
)
from console_world import EMOJI, HTML, TERMINAL, ConsoleWorld, running
from server_world import parts_over

IS_AT_REST = """() => {
    const shown = document.querySelector('.grid .box').innerHTML;
    const isSame = shown === window.shownBefore;
    window.shownBefore = shown;
    return isSame;
}"""
"""The grid's rows are those of its place: nothing changed between two frames."""


def test_screens__each_is_whole_light_and_dark_and_has_no_serious_barrier(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    """Only colors differ in the dark: nothing else is checked there again."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page = new_page(color_scheme="light", reduced_motion="reduce")
    barriers = {}
    for name in SCREENS:
        page.emulate_media(color_scheme="light")
        show(page, world, name)
        page.screenshot(path=SHOTS / f"{name}-light.png")
        expect(page.locator("[role=alert]")).to_have_count(0)
        barriers[name] = serious(page)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("() => document.documentElement.dataset.theme == 'dark'")
        page.screenshot(path=SHOTS / f"{name}-dark.png")
        barriers[f"{name}, dark"] = serious(page, only="color-contrast")
    assert {name: found for name, found in barriers.items() if found} == {}


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
    page.locator(".tile").nth(6).scroll_into_view_if_needed()  # as the click would
    page.wait_for_function(IS_AT_REST)
    place = box.evaluate("box => box.scrollTop")
    names = page.locator(".tile .name").all_inner_texts()
    page.locator(".tile").nth(6).click()
    expect(page.locator("h1")).not_to_have_text("Browse")
    page.go_back()
    expect(page).to_have_url(address)
    expect(page.locator(".tile .name")).to_have_text(names)
    page.wait_for_function("place => document.querySelector('.grid .box').scrollTop == place",
                           arg=place)  # fmt: skip
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
    expect(page.locator("dialog dt").first).to_be_visible()
    shown = page.locator("dialog dt").all_inner_texts()
    assert len(shown) >= 18, shown
    press("g")
    press("r")  # keys belong to the dialog now
    expect(page.locator("dialog")).to_be_visible()
    press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    press("ArrowRight")
    press("ArrowDown")
    page.wait_for_function("() => Number(document.activeElement.dataset.index) > 1")
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
    page.wait_for_function("() => document.activeElement.id == 'prefix'")
    press("Escape")
    for letter, name in (("l", "Live"), ("r", "Review"), ("w", "What if"), ("f", "Search"),
                         ("s", "Snapshots"), ("o", "Operations"), ("b", "Browse")):  # fmt: skip
        press_one_after_the_other(page, f"g {letter}")
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    press("t")
    press("t")
    page.wait_for_function("() => document.documentElement.dataset.theme == 'dark'")


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
