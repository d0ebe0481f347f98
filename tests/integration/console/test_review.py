"""Review: what people say of images, by key, one at a time and many at once, and taken back."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from console_pages import id_of, outcome_of, outcomes
from console_world import ConsoleWorld, running


def test_review__groups_are_gone_through_by_keyboard(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/review")
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
    expect(page.locator(".pair")).to_be_visible()
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


def test_review__rulings_by_key_hold_at_once_and_are_taken_back(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/review")
    shown = page.locator("section p a").first
    shown.wait_for()
    object_id = int(re.sub(r".*/image/(\d+).*", r"\1", shown.get_attribute("href") or ""))
    said = page.locator(".said")
    for key, outcome in (("n", "kept"), ("a", "kept"), ("c", "kept"), ("x", "rejected")):
        page.goto(f"{world.url}/image/{object_id}")
        expect(page.locator(".pair")).to_be_visible()
        page.keyboard.press(key)
        expect(said).to_contain_text("1 image")
        assert outcome_of(world, object_id) == outcome
        page.keyboard.press("u")
        expect(said).to_contain_text("Taken back")
        assert outcome_of(world, object_id) == "duplicate"


def test_review__a_second_reviewer_is_told_and_a_viewer_may_only_look(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    one, other = new_page(), new_page()
    object_id = id_of(world, outcome="duplicate")
    for page in (one, other):
        page.goto(f"{world.url}/image/{object_id}")
        expect(page.locator(".pair")).to_be_visible()
    one.keyboard.press("a")
    expect(one.locator(".said")).to_be_visible()
    other.keyboard.press("x")
    expect(other.locator(".refused")).to_be_visible()
    expect(other.locator("header .chip")).to_have_text("Kept")
    assert outcome_of(world, object_id) == "kept"
    one.keyboard.press("u")
    expect(one.locator(".said")).to_contain_text("Taken back")


def test_review__the_best_of_every_group_is_previewed_applied_and_undone_as_one(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/review")
    page.get_by_role("button", name="Keep the best of every group").click()
    page.get_by_label("In each group keep").select_option("newest")
    apply = page.get_by_role("button", name="Apply to")
    expect(apply).to_be_enabled()
    expect(page.locator("dialog")).to_contain_text("would change")
    before = outcomes(world)
    apply.click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".said")).to_contain_text("Chosen by the rule")
    assert outcomes(world) != before
    page.keyboard.press("u")
    expect(page.locator(".said")).to_contain_text("Taken back")
    assert outcomes(world) == before


def test_review__what_is_said_while_the_server_is_away_is_sent_once_it_is_back(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    object_id = id_of(world, outcome="duplicate")
    with running(world.parts) as url:
        page.goto(f"{url}/image/{object_id}")
        expect(page.locator(".pair")).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator(".refused")).to_contain_text("not sent yet")
    assert outcome_of(world, object_id) == "duplicate"
    with running(world.parts, int(url.rsplit(":", 1)[1])):
        expect(page.locator(".said")).to_contain_text("This one is kept too")
        assert outcome_of(world, object_id) == "kept"
        page.keyboard.press("u")
        expect(page.locator(".said")).to_contain_text("Taken back")
    assert outcome_of(world, object_id) == "duplicate"
