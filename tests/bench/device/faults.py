"""What goes wrong with a GPU: no memory, a neighbor that takes it, a device that is lost."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.device import models
from bench.device.consumer import FREE
from bench.device.embedding import batch_of, pictures
from bench.device.options import Options
from bench.device.sheet import Sheet
from bench.device.world import world
from pixsift.adapters.accelerator.batches import RECOVER_AFTER
from pixsift.adapters.accelerator.device import pick_device
from pixsift.adapters.models.dinov2 import Dinov2Embedder
from pixsift.core.images import Pixels
from pixsift.errors import DeviceLostError

_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """A model on the GPU, a full batch for it, and what that takes and gives when all is well."""

    embedder: Dinov2Embedder
    images: list[Pixels]
    expected: NDArray[np.float32]
    need: int
    """Bytes beyond the weights."""
    device: torch.device

    @property
    def limit(self) -> int:
        """The largest batch that is tried now."""
        return self.embedder._batches._limit


def run(sheet: Sheet, options: Options) -> None:
    _lost_device(sheet, options)
    if not options.is_gpu:
        sheet.skip("out of memory", "a CPU has no memory of its own; unit tests raise the error")
        return
    subject = _subject(options)
    _own_limit(sheet, subject)
    _neighbor(sheet, subject)
    _no_room_at_all(sheet, subject)


def _subject(options: Options) -> _Subject:
    device = pick_device(options.device)
    folder = models.folder_of("tiny" if options.tiny else "B", options)
    embedder = Dinov2Embedder(str(folder), device=options.device, max_batch=_BATCH)
    images = pictures(_BATCH)
    expected = embedder.embed(images).embeddings
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device)
    embedder.embed(images)
    need = torch.cuda.max_memory_allocated(device) - held
    return _Subject(embedder, images, expected, need, device)


def _own_limit(sheet: Sheet, subject: _Subject) -> None:
    """This process may hold its weights and four tenths of what a full batch needs."""
    with _allowed(subject, 0.4 * subject.need):
        _check_halved(sheet, "out of memory", subject)
    _check_recovers(sheet, "out of memory", subject)


def _neighbor(sheet: Sheet, subject: _Subject) -> None:
    """Another process takes all but four tenths of what a full batch needs."""
    torch.cuda.empty_cache()
    with _taken(int(0.4 * subject.need)):
        _check_halved(sheet, "a neighbor takes memory", subject)
    _check_recovers(sheet, "a neighbor takes memory", subject)


@contextmanager
def _allowed(subject: _Subject, more: float) -> Iterator[None]:
    """This process may take ``more`` bytes beyond what it holds."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(subject.device).total_memory
    allowed = (torch.cuda.memory_reserved(subject.device) + more) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed), subject.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, subject.device)


@contextmanager
def _taken(leave: int) -> Iterator[None]:
    """A process that holds the GPU's memory but for ``leave`` bytes."""
    code = (
        "import sys, torch\n"
        "torch.zeros(1, device='cuda')\n"
        f"held = torch.empty(torch.cuda.mem_get_info()[0] - {leave}, dtype=torch.uint8,"
        " device='cuda')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline().strip() != "held":
            raise AssertionError("the neighbor could not take the memory")
        yield
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def _check_halved(sheet: Sheet, what: str, subject: _Subject) -> None:
    found = subject.embedder.embed(subject.images).embeddings
    whole = found.shape == subject.expected.shape
    cosine = float((found * subject.expected).sum(axis=1).min()) if whole else -1.0
    sheet.add(f"{what}: the batch is halved", subject.limit, "images", limit=_BATCH,
              limit_name="the full batch", goal="right",
              met=subject.limit < _BATCH and cosine >= 0.999,
              note=f"{len(found)} of {_BATCH} embedded, cosine to before {cosine:.5f}")  # fmt: skip


def _check_recovers(sheet: Sheet, what: str, subject: _Subject) -> None:
    started, calls = time.perf_counter(), 0
    while subject.limit < _BATCH and calls < 12 * RECOVER_AFTER:
        subject.embedder.embed(subject.images[: subject.limit])
        calls += 1
    sheet.add(f"{what}: the batch grows back", calls, "clean batches", goal="right",
              met=subject.limit == _BATCH,
              note=f"{time.perf_counter() - started:.1f} s")  # fmt: skip


def _no_room_at_all(sheet: Sheet, subject: _Subject) -> None:
    """No memory for one image says nothing about the image: the device is given up."""
    filler: list[torch.Tensor] = []
    with _allowed(subject, 0):
        try:
            while True:
                filler.append(torch.empty(1 << 20, dtype=torch.uint8, device=subject.device))
        except torch.OutOfMemoryError:
            pass  # full
        try:
            subject.embedder.embed(subject.images)
            said = "embedded all the same"
        except DeviceLostError as error:
            said = str(error)
        filler.clear()
    sheet.add("no memory for one image", said, goal="right",
              met="restart the process" in said)  # fmt: skip


def _lost_device(sheet: Sheet, options: Options) -> None:
    """A consumer whose GPU fails ends with status 4, gives all back; the next decides the rest."""
    name = models.names(options)[0]
    folder: Path = models.folder_of(name, options)
    batch = batch_of(options)
    images = [number.to_bytes(4, "big") * 100 for number in range(6 * batch)]
    with world(options) as place, place.ledger("f_lost", folder) as database_url:
        place.upload(images)
        more = {**FREE, "PXD_LOSE_DEVICE_AFTER": "3"}
        with place.consumer(database_url, folder, batch=batch, log="lost", more=more) as consumer:
            status = consumer.process.wait(options.patience)
        decided, left = place.decided(database_url), place.left()
        right = (
            status == 4 and 0 < len(decided) < len(images) and len(decided) + left >= len(images)
        )
        how = "" if options.is_gpu else " (only raised: this is a CPU)"
        sheet.add(f"a lost device ends the consumer{how}", status, "exit status", goal="right",
                  met=right and not any(o == "failed" for o, _ in decided.values()),
                  note=f"{len(decided)} decided, {left} of {len(images)} given back")  # fmt: skip
        with place.consumer(database_url, folder, batch=batch, log="after", more=FREE) as consumer:
            place.drain()
            consumer.stop(seconds=place.options.patience)
        after = place.decided(database_url)
        sheet.add("the next consumer decides the rest", len(after), "objects", goal="right",
                  met=len(after) == len(images)
                  and not any(outcome == "failed" for outcome, _ in after.values()))  # fmt: skip
