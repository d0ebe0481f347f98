"""What-if, search and snapshots: looked at, applied, asked for, and taken back."""

import json
from collections.abc import Callable

import boto3
from playwright.sync_api import Page, expect

from console_pages import id_of, outcomes
from console_world import ConsoleWorld


def test_what_if__limits_by_key_are_counted_applied_and_undone(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    before = outcomes(world)
    page.goto(f"{world.url}/what-if?distance=0.02")
    expect(page.locator(".big")).to_contain_text("Kept")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.wait_for_url("**distance=0.019**change=0.952**")
    expect(page.locator(".big")).to_contain_text("(+")
    told = page.locator(".big").inner_text()
    assert outcomes(world) == before
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    said = page.locator(".said")
    expect(said).to_contain_text("is in force")
    kept = sum(outcome == "kept" for _, outcome in outcomes(world))
    assert f"→ {kept} " in told
    page.keyboard.press("u")
    expect(said).to_contain_text("Back to the rule before")
    assert outcomes(world) == before


def test_what_if__a_limit_is_dragged_and_a_pair_is_compared(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/what-if")
    grip = page.get_by_role("slider", name="Limit of distance").locator("circle")
    box = grip.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 40)
    page.mouse.up()
    page.wait_for_url("**distance=0.0**")
    page.locator(".sides button").first.click()
    expect(page.locator(".pair img").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".pair")).to_have_count(0)


def test_search__finds_by_image_by_upload_by_folder_and_away_from_some(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    kept = id_of(world, key="robot-3/front/coffee-0/000.jpg")
    page.goto(f"{world.url}/search")
    expect(page.get_by_role("heading", name="Search by example")).to_be_visible()
    page.get_by_label("Image or folder in S3").fill("s3://raw/robot-3/front/coffee-0/000.jpg")
    page.keyboard.press("Enter")
    first = page.locator(".hits a").first
    expect(first).to_be_visible()
    assert page.locator(f"#hit-{kept}").count() == 0  # not the example itself
    first.focus()
    liked = first.get_attribute("id")
    page.keyboard.press("-")
    expect(page.locator(".example.counter")).to_have_count(1)
    expect(page.locator(f"#{liked}")).to_have_count(0)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Image or folder in S3").fill("s3://raw/robot-1/")
    page.keyboard.press("Enter")
    expect(page.locator(".example.folder")).to_be_visible()
    expect(page.locator("section[aria-label=Result] a").first).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Search by example")).to_be_visible()
    page.goto(f"{world.url}/search?like=3&like=40&like=60")
    expect(page.locator(".mode")).to_have_count(2)


def test_search__a_part_of_a_picture_and_a_pasted_one(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    kept = id_of(world, key="robot-3/front/coffee-0/000.jpg")
    page.goto(f"{world.url}/search?like={kept}")
    page.get_by_role("button", name="Crop").click()
    page.wait_for_selector("dialog img")
    with page.expect_request("**/v1/search/upload"):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("-")
        page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".example img")).to_have_count(1)
    # The stub of a model has vectors of its own size: what matters here is what was sent, and that
    # an answer that cannot be given is shown.
    expect(page.locator(".trouble, .hits").first).to_be_visible()
    page.evaluate("""async () => {
        const canvas = new OffscreenCanvas(40, 30);
        canvas.getContext('2d').fillRect(0, 0, 20, 20);
        const data = new DataTransfer();
        data.items.add(new File([await canvas.convertToBlob()], 'p.png', {type: 'image/png'}));
        dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));
    }""")
    expect(page.locator(".example img")).to_have_count(2)


def test_search__what_is_picked_becomes_a_request(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/search?like={id_of(world, key='robot-3/front/coffee-0/000.jpg')}")
    page.locator(".hits a").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("a")
    page.wait_for_url("**/snapshots/new?strategy=similar")
    expect(page.locator(".targets li")).to_have_count(2)
    expect(page.locator(".pictures img").first).to_be_visible()


def test_builder__shows_what_would_be_chosen_and_asks_for_it(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/snapshots")
    page.wait_for_selector("table")
    page.keyboard.press("n")
    page.get_by_label("How many images").fill("5")
    expect(page.locator(".numbers dd").first).to_have_text("5")
    expect(page.locator("canvas")).to_be_visible()
    expect(page.get_by_role("heading", name="Worst covered")).to_be_visible()
    page.get_by_label("Equal shares by").select_option("robot")
    expect(page.get_by_role("heading", name="Share of each robot")).to_be_visible()
    page.get_by_label("train").fill("70")
    expect(page.locator("section[aria-label='Dry run']")).to_contain_text("add up to 100 %")
    page.get_by_label("val").fill("30")
    page.get_by_label("Name", exact=True).fill("my-set")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name="Waiting for the curator")).to_be_visible()
    (message,) = boto3.client("sqs").receive_message(
        QueueUrl=boto3.client("sqs").get_queue_url(QueueName="requests")["QueueUrl"]
    )["Messages"]
    request = json.loads(message["Body"])
    assert request["name"] == "my-set"
    assert request["select"]["k"] == 5
    assert request["select"]["quota"]["by"] == "robot"
    assert request["split"]["val"] == 0.3


def test_snapshot__is_verified_and_compared_with_another(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/snapshots/november")
    page.wait_for_selector(".items")
    page.keyboard.press("v")
    expect(page.locator("main")).to_contain_text("are there, in full size")
    expect(page.locator("main")).to_contain_text("Nothing was erased out of it")
    page.goto(f"{world.url}/snapshots")
    for name in ("november", "december"):
        page.get_by_label(f"Compare {name}").check()
    page.keyboard.press("d")
    expect(page.locator("h1")).to_contain_text("From november to december")
    expect(page.get_by_role("heading", name="Removed")).to_be_visible()
    expect(page.get_by_role("heading", name="Added")).to_be_visible()
