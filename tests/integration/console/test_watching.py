"""Watches, near misses, quality flags, messages given up, and erased images of a snapshot."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import boto3
import numpy as np
from playwright.sync_api import Page, expect

from console_pages import SHOTS, id_of, serious
from console_world import ConsoleWorld
from ledger_world import DIMENSION, unit
from made_images import scene
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.operations.erase import new_erasure
from server_world import QUEUES

TOWARD = np.random.default_rng(41).normal(size=DIMENSION)


def test_watch__is_saved_matches_what_is_there_and_what_arrives_and_is_ended(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page(color_scheme="light", reduced_motion="reduce")
    page.goto(f"{world.url}/search?like={id_of(world, key='robot-3/front/coffee-0/000.jpg')}")
    expect(page.locator(".hits img").first).to_be_visible()
    page.keyboard.press("w")
    page.get_by_label("Name").fill("<b>cups</b>")
    page.get_by_label("At most this far apart").fill("2")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search/watches/**")
    expect(page.locator("h1")).to_have_text("<b>cups</b>")
    expect(page.locator(".hits li").first).to_contain_text("was there before")
    world.commit(world.put("robot-8/front/arrived.jpg", scene("coins.png").resize((96, 72)),
                           unit(*np.random.default_rng(8).normal(size=DIMENSION))))  # fmt: skip
    expect(page.locator(".hits li").first).to_contain_text("arrived.jpg")
    SHOTS.mkdir(parents=True, exist_ok=True)
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for theme in themes:
        page.emulate_media(color_scheme=theme)
        page.screenshot(path=SHOTS / f"watch-{theme}.png")
        assert serious(page) == []
    page.keyboard.press("Escape")
    watches = page.locator("section[aria-label=Watches] tr", has_text="cups")
    expect(watches).to_contain_text("watching")
    watches.get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("<b>cups</b>")
    page.keyboard.press("e")
    page.keyboard.press("Enter")
    expect(page.locator("header")).to_contain_text("ended")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Search by example")).to_be_visible()
    expect(watches).to_have_count(0)
    page.goto(f"{world.url}/search/watches/no-such-watch")
    expect(page.get_by_role("heading", name="There is no such watch")).to_be_visible()


def test_image__that_was_nearly_a_duplicate_is_shown_beside_the_other(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    size = (256, 192)
    world.commit(world.put("robot-7/front/first.jpg", scene("chelsea.png").resize(size).rotate(180),
                           unit(*TOWARD)))  # fmt: skip
    near = unit(*(TOWARD + 0.02 * np.random.default_rng(5).normal(size=DIMENSION)))
    world.commit(world.put("robot-7/front/next.jpg", scene("rocket.jpg").resize(size).rotate(90),
                           near))  # fmt: skip
    page = new_page()
    page.goto(f"{world.url}/image/{id_of(world, key='robot-7/front/next.jpg')}")
    expect(page.locator("section[aria-label=Comparison]")).to_contain_text("Nearly a duplicate.")
    expect(page.locator(".pair img")).to_have_count(2)
    page.get_by_role("link", name="Look at the other image").click()
    expect(page.locator("h1")).to_have_text("first.jpg")


def test_browse__shows_images_with_a_flag(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    pale = world.put("robot-7/left/pale.jpg", scene("rocket.jpg").resize((96, 72)),
                     unit(*np.random.default_rng(77).normal(size=DIMENSION)))  # fmt: skip
    world.commit(replace(pale, detail={"flags": ["low_contrast"]}))
    page = new_page()
    page.goto(f"{world.url}/browse")
    page.get_by_role("button", name="low contrast").click()
    expect(page).to_have_url(f"{world.url}/browse?flag=low_contrast")
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.locator(".tile .flag")).to_have_text("low contrast")
    page.locator(".tile").click()
    expect(page.locator("header .chip.rejected")).to_have_text("flagged: low contrast")


def test_operations__messages_given_up_are_listed_by_reason(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=QUEUES["ingest_dlq"])["QueueUrl"]
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": "raw"}, "object": {"key": "robot-1/lost.jpg", "size": 9}}}  # fmt: skip
    for body in (json.dumps({"Records": [record]}), "<i>no json</i>", "neither"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    try:
        page = new_page()
        page.goto(f"{world.url}/operations?tab=undecided")
        page.get_by_role("button", name="Look into them").click()
        section = page.locator("section.card", has_text="3 messages given up")
        expect(section.locator("details")).to_have_count(2)
        for each in section.locator("summary").all():
            each.click()
        expect(section).to_contain_text("not JSON 2 messages")
        expect(section).to_contain_text("s3://raw/robot-1/lost.jpg")
        page.screenshot(path=SHOTS / "given-up-light.png")
    finally:
        sqs.purge_queue(QueueUrl=url)


def test_snapshot__tells_what_was_erased_out_of_it(
    world: ConsoleWorld, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(f"{world.url}/snapshots/december")
    expect(page.locator("main")).to_contain_text("Nothing was erased out of it")
    details = page.request.get(f"{world.url}/v1/snapshots/december").json()
    image = next(each for each in details["items"] if "s3://raw/robot-4" not in each["source"])
    erasure = new_erasure(
        world.parts.database, S3Objects(confirm_after_seconds=0), derived_bucket="derived",
        curated_bucket="curated", journal_bucket="curated",
    )  # fmt: skip
    key = image["source"].removeprefix("s3://raw/").split("?")[0]
    erasure.erase(erasure.find("raw", key, None), reason="asked for")
    page.reload()
    expect(page.locator("main")).to_contain_text("1 image was erased on request, and taken out")
    expect(page.locator("main li", has_text=image["path"])).to_be_visible()
