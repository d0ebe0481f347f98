"""Where the change is: marked on both thumbnails, in a pair, on its tile and in the story."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from console_pages import id_of
from console_world import ConsoleWorld


def center(ring: Locator) -> tuple[float, float]:
    """Of a ring: shares of the picture that it lies on."""
    mark, frame = ring.bounding_box(), ring.locator("..").locator("img").bounding_box()
    assert mark is not None
    assert frame is not None
    return (
        (mark["x"] + mark["width"] / 2 - frame["x"]) / frame["width"],
        (mark["y"] + mark["height"] / 2 - frame["y"]) / frame["height"],
    )


def test_image__the_story_marks_where_the_second_look_sees_most_of_the_difference(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page, duplicate = new_page(), id_of(world, key="robot-3/front/coffee-0/002.jpg")
    page.goto(f"{world.url}/image/{duplicate}")
    rings = page.locator(".pair .ring")
    expect(rings).to_have_count(2)
    page.wait_for_function("() => [...document.images].every(i => i.complete)")
    story = page.request.get(f"{world.url}/v1/images/{duplicate}").json()["story"]
    (chapter,) = story["collections"]
    change = chapter["proof"]["second_look"]["change"]
    painted = (180 / 256, 120 / 192)  # see console_world
    assert center(rings.nth(0)) == pytest.approx(painted, abs=0.1)
    assert center(rings.nth(0)) == pytest.approx(change["place"], abs=0.02)
    assert center(rings.nth(1)) == pytest.approx(change["place_in_other"], abs=0.02)
    page.keyboard.press("m")
    expect(rings).to_have_count(0)


def test_what_if__tiles_and_pairs_mark_the_change_on_both_thumbnails(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/what-if")
    tile = page.locator(".sides li").filter(has=page.locator(".ring")).first
    expect(tile.locator(".ring")).to_have_count(2)
    tile.scroll_into_view_if_needed()
    expect(tile.locator("img").nth(1)).to_be_visible()
    small = [center(tile.locator(".ring").nth(side)) for side in (0, 1)]
    tile.get_by_role("button").click()
    rings = page.locator(".pair .ring")
    expect(rings).to_have_count(2)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.pair img')].every(i => i.complete && i.naturalWidth)"
    )
    for side in (0, 1):
        assert center(rings.nth(side)) == pytest.approx(small[side], abs=0.05)
