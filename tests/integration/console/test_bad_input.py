"""What robots, erasures, colleagues and time do to a page that is open: it says what happened."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from console_pages import SHOTS, arrival, id_of, outcome_of, until
from console_world import ConsoleWorld, running
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.api import TokenAsk
from pixsift.operations.access import create_token, revoke_token
from pixsift.operations.erase import new_erasure
from server_world import parts_over
from serving import Wire


def test_image__without_a_thumbnail_has_a_calm_place(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/image/{id_of(world, key='robot-3/right/half.jpg')}")
    expect(page.locator("p.verdict")).to_contain_text("truncated")
    expect(page.get_by_role("img", name="half.jpg: no picture")).to_be_visible()
    page.goto(f"{world.url}/browse?outcome=rejected")
    expect(page.locator(".tile .none")).to_have_count(1)


def test_image__erased_while_it_is_looked_at(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    arrival(world, "secret")
    object_id = id_of(world, key="robot-9/front/secret.jpg")
    page = new_page()
    page.goto(f"{world.url}/image/{object_id}")
    expect(page.locator("p.verdict")).to_contain_text("Kept")
    erasure = new_erasure(
        world.parts.database, S3Objects(confirm_after_seconds=0), derived_bucket="derived",
        curated_bucket="curated", journal_bucket="curated",
    )  # fmt: skip
    erasure.erase(erasure.find("raw", "robot-9/front/secret.jpg", None), reason="asked for")
    page.keyboard.press("o")  # the original is gone as well
    expect(page.get_by_role("alert")).to_contain_text("erased")
    page.keyboard.press("x")  # and nothing can be said of it
    expect(page.locator("p.verdict")).to_contain_text("erased on request")
    page.reload()
    expect(page.locator("p.verdict")).to_contain_text("erased on request")
    expect(page.get_by_role("img", name="secret.jpg: no picture")).to_be_visible()


def test_ruling__of_an_expired_session_is_sent_after_the_next_token(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    object_id = id_of(world, outcome="duplicate")
    database = world.parts.database
    made = create_token(database, TokenAsk(name="ana", role="reviewer"), actor="test")
    page = new_page()
    closed = parts_over(database, host_names=frozenset({"127.0.0.1"}), is_cookie_secure=False)
    with running(closed) as url:
        page.goto(f"{url}/image/{object_id}")
        page.get_by_label("Token").fill(made.token)
        page.keyboard.press("Enter")
        expect(page.locator(".pair")).to_be_visible()
        revoke_token(database, made.token_id, actor="test")
        page.keyboard.press("a")
        expect(page.get_by_role("heading", name="Your session has ended")).to_be_visible()
        assert outcome_of(world, object_id) == "duplicate"
        page.get_by_label("Token").fill(world.tokens["operator"])
        page.keyboard.press("Enter")
        expect(page.locator(".said")).to_contain_text("This one is kept too")
        assert outcome_of(world, object_id) == "kept"
        page.keyboard.press("u")
        expect(page.locator(".said")).to_contain_text("Taken back")
        assert outcome_of(world, object_id) == "duplicate"


def test_ruling__over_a_connection_that_died_without_a_word_is_sent_over_another(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    """No connection is refused or closed: only the time limit of the page ends the wait."""
    object_id = id_of(world, outcome="duplicate")
    page = new_page()
    page.clock.install()
    with Wire(int(world.url.rsplit(":", 1)[1])) as wire:
        page.goto(f"http://127.0.0.1:{wire.port}/image/{object_id}")
        expect(page.locator(".pair")).to_be_visible()
        wire.cut()
        page.keyboard.press("a")
        until(page, page.locator(".refused", has_text="not sent yet"), jump=11_000)
        expect(page.locator(".banner")).to_be_visible()
        assert outcome_of(world, object_id) == "duplicate"
        wire.restore()
        until(page, page.locator(".said", has_text="This one is kept too"), jump=11_000)
        expect(page.locator(".banner")).to_have_count(0)
        assert outcome_of(world, object_id) == "kept"
        page.keyboard.press("u")
        expect(page.locator(".said")).to_contain_text("Taken back")
        assert outcome_of(world, object_id) == "duplicate"


def test_live__a_stream_that_died_without_a_word_is_opened_anew(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.clock.install()
    newest = page.locator("section.kept li a").first
    with Wire(int(world.url.rsplit(":", 1)[1])) as wire:
        page.goto(f"http://127.0.0.1:{wire.port}/")
        arrival(world, "heard")
        expect(newest).to_have_attribute("title", "heard.jpg")
        wire.cut()
        arrival(world, "missed")
        wire.restore()
        until(page, page.locator("section.kept li a[title='missed.jpg']"), jump=20_000)
        expect(newest).to_have_attribute("title", "missed.jpg")


def test_tokens__are_shown_once_and_ended(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/operations?tab=tokens")
    page.get_by_label("Name").fill('<b onmouseover="alert(1)">Ana</b>')
    page.get_by_role("button", name="Make a token").click()
    secret = page.locator(".made pre")
    expect(secret).to_contain_text("px_")
    page.screenshot(path=SHOTS / "tokens-light.png")
    page.reload()
    expect(page.locator("table")).to_contain_text("<b onmouseover")
    expect(secret).to_have_count(0)
    page.locator("tr", has_text="onmouseover").get_by_role("button", name="End").click()
    page.keyboard.press("Enter")
    expect(page.locator("tr", has_text="onmouseover")).to_contain_text("ended")


def test_operations__what_failed_is_sent_once_more_and_the_audit_holds(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    queue = world.parts.queue("ingest")
    before = queue.depth()[0]
    page.goto(f"{world.url}/operations?tab=undecided")
    expect(page.locator("summary").first).to_contain_text("every attempt failed")
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.locator(".said")).to_contain_text("1 failed image")
    assert queue.depth()[0] == before + 1
    page.goto(f"{world.url}/operations?tab=audit")
    page.get_by_role("button", name="Check").wait_for()
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name="Every invariant holds")).to_be_visible()
