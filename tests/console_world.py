"""A served ledger of real pictures for the console: robots, duplicates, refusals, a snapshot, and
names that a robot should not have chosen."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import numpy as np
from moto import mock_aws
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from ledger_world import DIMENSION, finding, new_collection, unit
from made_images import scene
from pixsift.adapters.decode.recipe import DecodeLimits, decode_image
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.api import TokenAsk
from pixsift.core import presets
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage
from pixsift.core.outcomes import Judged
from pixsift.core.second_look import LookRule
from pixsift.core.sources import SourceRule
from pixsift.operations.access import create_token
from pixsift.telemetry import make_logger
from pixsift_server.app import make_app
from pixsift_server.parts import Parts
from server_world import aws, parts_over
from serving import serving
from snapshot_world import World as SnapshotWorld
from snapshot_world import request

HTML = 'robot-4/front/"><img src=x onerror="document.title=1"><b>bold.jpg'
TERMINAL = "robot-4/front/\x1b[31mred\x1b[0m\u202egpj.exe.jpg"
EMOJI = "robot-4/front/xx" + "🤖" * 251 + ".jpg"
"""1,024 bytes, the longest that S3 takes."""
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
               "coins.png")  # fmt: skip
BEGUN = datetime(2026, 11, 26, 9, tzinfo=UTC)
SIZE = (256, 192)
"""So small that the thumbnail is the picture."""
LIMITS = DecodeLimits()
LENIENT = 40.0
"""Factor on what counts as a change: what is painted into a frame does not keep it."""


@dataclass
class ConsoleWorld:
    """Where it is served, and how to add to it."""

    url: str
    parts: Parts
    ledger: Ledger
    collection: Collection
    s3: Any
    """A client of the emulated S3."""
    minutes: int = 0
    tokens: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, picture: Image.Image, vector: Any) -> Judged:
        """Store the picture and its thumbnail as the consumer does."""
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=88)
        blob = out.getvalue()
        decoded = decode_image(blob, 224, LIMITS)
        assert isinstance(decoded, DecodedImage)
        sha256 = hashlib.sha256(blob).digest()
        s3 = self.s3
        thumbnail_key = f"t/{sha256.hex()}.webp"
        s3.put_object(Bucket="derived", Key=thumbnail_key, Body=decoded.thumbnail_webp)
        stored = s3.put_object(Bucket="raw", Key=key, Body=blob)
        self.minutes += 1
        facts = decoded.facts
        return Judged(
            ObjectVersion("raw", key, stored["VersionId"]), "embedded",
            etag=stored["ETag"].strip('"'), size_bytes=len(blob), content_sha256=sha256,
            pixel_sha256=decoded.pixel_sha256, thumbnail_key=thumbnail_key,
            image_facts={"format": facts.format, "width": facts.width, "height": facts.height},
            quality=decoded.quality, captured_at=BEGUN + timedelta(minutes=self.minutes),
            stored_at=BEGUN + timedelta(minutes=self.minutes, seconds=4), embedding=vector,
            look=decoded.look,
        )  # fmt: skip

    def commit(self, *judged: Judged) -> None:
        """One decision transaction."""
        self.ledger.commit(self.collection, list(judged))


def fill(world: ConsoleWorld) -> None:
    """Two dozen places seen by three robots, many of them again and again."""
    for number, name in enumerate(PHOTOGRAPHS):
        whole = scene(name)
        robot = f"robot-{number % 3 + 1}"
        for place, picture in enumerate(_places(whole)):
            camera = ("front", "left", "right")[place % 3]
            rng = np.random.default_rng([number, place])
            toward = rng.normal(size=DIMENSION)
            folder = f"{robot}/{camera}/{name.split('.')[0]}-{place}"
            world.commit(world.put(f"{folder}/000.jpg", picture, unit(*toward)))
            again = [
                world.put(
                    f"{folder}/{frame + 1:03}.jpg", _again(picture, frame), _near(toward, rng)
                )
                for frame in range((7 * number + 3 * place) % 6)
            ]
            if again:
                world.commit(*again)
    picture = scene("coffee.png").resize(SIZE)
    world.commit(
        world.put("robot-2/front/coffee-0/copy.jpg", _places(scene("coffee.png"))[0], None)
    )
    for frame, spoiled in enumerate((ImageEnhance.Brightness(picture).enhance(0.06),
                                     picture.filter(ImageFilter.GaussianBlur(9)))):  # fmt: skip
        refused = world.put(f"robot-1/left/spoiled-{frame}.jpg", spoiled, None)
        world.commit(_refused(refused, ("dark", "blurred")[frame]))
    world.commit(finding("robot-3/right/half.jpg", "rejected", "truncated"))
    world.commit(finding("robot-3/right/odd.jpg", "failed", "gave_up"))
    for index, key in enumerate((HTML, TERMINAL, EMOJI)):
        toward = np.random.default_rng([99, index]).normal(size=DIMENSION)
        world.commit(world.put(key, _places(scene("rocket.jpg"))[index].rotate(180), unit(*toward)))


def _places(whole: Image.Image) -> list[Image.Image]:
    """Four views of one photograph."""
    width, height = (side * 3 // 5 for side in whole.size)
    right, bottom = whole.width - width, whole.height - height
    corners = ((0, 0), (right, 0), (0, bottom), (right, bottom))
    return [whole.crop((x, y, x + width, y + height)).resize(SIZE) for x, y in corners]


def _again(picture: Image.Image, frame: int) -> Image.Image:
    """The same place a moment later: other light, and in every third frame something new."""
    lit = ImageEnhance.Brightness(picture).enhance(1 + 0.03 * (frame + 1))
    if frame % 3 == 1:
        ImageDraw.Draw(lit).rounded_rectangle((160, 100, 200, 140), 5, fill=(214, 64, 48))
    return lit


def _near(toward: Any, rng: np.random.Generator) -> Any:
    """A vector well within epsilon."""
    direction = toward / np.linalg.norm(toward)
    return unit(*(direction + rng.uniform(0.02, 0.06) * rng.normal(size=DIMENSION)))


def _refused(judged: Judged, reason: str) -> Judged:
    return Judged(
        judged.version, "rejected", reason, size_bytes=judged.size_bytes,
        content_sha256=judged.content_sha256, pixel_sha256=judged.pixel_sha256,
        image_facts=judged.image_facts, quality=judged.quality, captured_at=judged.captured_at,
        stored_at=judged.stored_at, thumbnail_key=judged.thumbnail_key,
    )  # fmt: skip


@contextmanager
def served_console(url: str, **rules: Any) -> Iterator[ConsoleWorld]:
    """The world on a free port of loopback; one snapshot is published."""
    with mock_aws(), Database(url, max_connections=12) as database:
        aws()
        s3 = boto3.client("s3")
        s3.put_bucket_versioning(
            Bucket="raw", VersioningConfiguration={"Status": "Enabled"}
        )  # fmt: skip
        ledger = Ledger(database)
        collection = new_collection(
            ledger, "warehouse", sources=[SourceRule("raw")],
            key_pattern=r"(?P<robot>[^/]+)/(?P<camera>[^/]+)/.*",
            second_look=presets.scaled(LookRule(), LENIENT).to_json(),
        )  # fmt: skip
        options: dict[str, Any] = {
            "needs_identity": False, "host_names": frozenset({"127.0.0.1"}),
            "is_cookie_secure": False, **rules,
        }  # fmt: skip
        world = ConsoleWorld("", parts_over(database, **options), ledger, collection, s3)
        fill(world)
        curator = SnapshotWorld(url, database, s3, "raw", "curated", collection, ledger)
        curator.serve(request(collection="warehouse", name="november",
                              select={"strategy": "k_center", "k": 8, "seed": 7},
                              split={"train": 0.75, "val": 0.25}))  # fmt: skip
        curator.serve(request(collection="warehouse", name="december", request_id="december",
                              select={"strategy": "random", "k": 8, "seed": 1}))  # fmt: skip
        for role in ("viewer", "operator"):
            made = create_token(database, TokenAsk(name=role, role=role), actor="test")
            world.tokens[role] = made.token
        with running(world.parts) as world.url:
            yield world


@contextmanager
def running(parts: Parts, port: int = 0) -> Iterator[str]:
    """A real uvicorn on loopback; its URL."""
    with serving(make_app(parts, make_logger("test", "ERROR")), port) as url:
        yield url
