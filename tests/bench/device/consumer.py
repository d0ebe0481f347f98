"""The whole consumer on the device: S3 and SQS from a stub, PostgreSQL durable.

The stub is one Python process, and a consumer another: what they reach on this machine without a
model is measured first, as the limit that no GPU can lift.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.device import models
from bench.device.embedding import batch_of
from bench.device.options import Options
from bench.device.photos import SIZES, TINY, photos
from bench.device.sheet import Sheet
from bench.device.world import World, kept_pairs_of, world
from pixsift.adapters.accelerator.device import usable_processors

BARE = "consumer without model and decoder"
FREE = {"PXD_FREE_DECODER": "1"}


def run(sheet: Sheet, options: Options) -> None:
    count = 24 if options.tiny else 2_000
    first, *others = models.names(options)
    with world(options) as place:
        small = [os.urandom(1_000) for _ in range(count)]
        bare = _one(place, "stub", Path("stub"), small, more=FREE)
        sheet.add(BARE, bare, "images/s",
                  note="one consumer process, the stub of S3 and SQS another")  # fmt: skip
        _free_decoder(sheet, options, place, first, small)
        _two(sheet, options, place, small)
        _with_decoder(sheet, options, place, count)
        for name in others:
            _free_decoder(sheet, options, place, name, small)


def _free_decoder(
    sheet: Sheet, options: Options, place: World, name: str, images: list[bytes]
) -> None:
    folder = models.folder_of(name, options)
    rate = _one(place, f"free_{name}", folder, images, more=FREE)
    sheet.add(
        f"{name}: consumer, decoder that costs nothing", rate, "images/s",
        limit=sheet.known(f"{name}: our Embedder, eager"), limit_name="our Embedder, eager",
        at_least=None if options.tiny else 0.9,
        note=f"{rate / (sheet.known(BARE) or rate):.2f} of the consumer without a model",
    )  # fmt: skip


def _one(
    place: World, name: str, model: Path, images: list[bytes], *, more: Mapping[str, str]
) -> float:
    """Images per second of one consumer with a database of its own."""
    batch = batch_of(place.options)
    with place.ledger(f"c_{name}".lower(), model) as database_url:
        place.upload(images)
        log = f"consumer-{name}"
        with place.consumer(database_url, model, batch=batch, log=log, more=more) as consumer:
            rate = place.rate(len(images))
            place.drain()
            consumer.stop(seconds=place.options.patience)
    return rate


def _two(sheet: Sheet, options: Options, place: World, images: list[bytes]) -> None:
    """Two consumers on one device: all decided, nothing kept twice, and their rate together."""
    name, batch = models.names(options)[0], batch_of(options)
    folder = models.folder_of(name, options)
    images = [*images, *images[: len(images) // 10]]  # one in eleven arrives twice
    with place.ledger("c_two", folder) as database_url:
        place.upload(images)
        with (
            place.consumer(database_url, folder, batch=batch, log="two-1", more=FREE) as one,
            place.consumer(database_url, folder, batch=batch, log="two-2", more=FREE) as two,
        ):
            rate = place.rate(len(images))
            place.drain()
            patience = options.patience
            statuses = one.stop(seconds=patience), two.stop(seconds=patience)
        decided, twice = len(place.decided(database_url)), kept_pairs_of(database_url)
    sheet.add(f"{name}: two consumers on one device", rate, "images/s",
              limit=sheet.known(f"{name}: consumer, decoder that costs nothing"),
              limit_name="one of them")  # fmt: skip
    right = decided == len(images) and twice == 0 and statuses == (0, 0)
    sheet.add(
        "two consumers: decided once each, nothing kept twice", decided, "objects",
        goal="right", met=right, note=f"{twice} pixels kept twice, statuses {statuses}",
    )  # fmt: skip


def _with_decoder(sheet: Sheet, options: Options, place: World, count: int) -> None:
    """The real decoder on all cores; every picture another."""
    cores = usable_processors()
    name = models.names(options)[0]
    size = TINY["tiny"] if options.tiny else SIZES["0.2 MP"]
    images = photos(size, range(min(count, 1_000)), processes=cores)
    workers = {"PIXSIFT_DECODE_WORKERS": str(cores)}
    rate = _one(place, "decoder", models.folder_of(name, options), images, more=workers)
    sheet.add(f"{name}: consumer, real decoder on {cores} cores, {size[0]}x{size[1]}", rate,
              "images/s", limit=sheet.known(f"0.2 MP: decoded by {cores} children"),
              limit_name="the decoder alone")  # fmt: skip
