"""The decoder's child process: locks itself down, then turns bytes into results.

By the time it sees a byte of an upload it cannot open files or sockets, start programs, signal or
inspect other processes, nor grow beyond its memory (``sandbox``). It was started with an empty
environment and holds two pipes of its own: one brings its images, the other takes its results, in
a format that cannot carry code (``wire``). It never sees an image that was given to another child.
"""

import io
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, Final

from PIL import Image, ImageCms

from pixsift.adapters.decode import wire
from pixsift.adapters.decode.recipe import DecodeLimits
from pixsift.adapters.decode.sandbox import lock_process
from pixsift.core.images import DecodeFailure, DecodeResult

OUT_OF_MEMORY: Final = 12
"""Exit status of a child that met its memory limit (ENOMEM)."""

Decode = Callable[[bytes, int, DecodeLimits], DecodeResult]


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """What a child receives in its first frame."""

    input_side: int
    decode: str
    """The decoder's name, ``module:function``."""
    limits: DecodeLimits


def main() -> None:
    """Lock down, report which locks hold, then answer frames of images until standard input
    ends."""
    requests, replies = _take_over_pipes()
    config = read_config(wire.read_frame(requests)[1][0])
    _warm_up(config.limits)
    decode = load_decoder(config.decode)
    _silence()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the consumer, which ends us
    locks = lock_process(config.limits.memory_bytes)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # also ends a decoder that never returns
    wire.write_frame(replies, wire.READY, [lock.encode() for lock in locks])
    while True:
        try:
            request, blobs = wire.read_frame(requests)
        except EOFError:
            return
        for blob in blobs:
            wire.write_frame(replies, request, [_decode_one(decode, blob, config)])


def write_config(config: ChildConfig) -> bytes:
    """The first frame's part."""
    limits = {name: getattr(config.limits, name) for name in DecodeLimits.__slots__}
    return json.dumps([config.input_side, config.decode, limits]).encode()


def read_config(part: bytes) -> ChildConfig:
    """The other way around."""
    input_side, decode, limits = json.loads(part)
    limits["formats"] = tuple(limits["formats"])
    return ChildConfig(input_side, decode, DecodeLimits(**limits))


def load_decoder(name: str) -> Decode:
    """``module:function`` to the function."""
    module, _, function = name.partition(":")
    loaded: Decode = getattr(import_module(module), function)
    return loaded


def _decode_one(function: Decode, blob: bytes, config: ChildConfig) -> bytes:
    limits = config.limits
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + limits.wall_seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds) + 1, hard))
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
    try:
        result = function(blob, config.input_side, limits)
    except MemoryError:
        result = DecodeFailure("decoder_memory", f"more than {limits.memory_bytes} bytes")
    except Exception as error:  # a bug in the decoder costs its own image only
        result = DecodeFailure("decoder_crash", type(error).__name__)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if isinstance(result, DecodeFailure) and result.reason == "decoder_memory":
        # The file's fault, or that of a long-running child? A second try alone in a new child
        # decides.
        os._exit(OUT_OF_MEMORY)
    return wire.pack_result(result)


def _warm_up(limits: DecodeLimits) -> None:
    """Import lazily loaded plugins and codecs while files can still be opened."""
    Image.init()
    ImageCms.createProfile("sRGB")
    picture = Image.new("RGB", (64, 64), (10, 200, 30))
    for image_format in limits.formats:
        out = io.BytesIO()
        options: dict[str, Any] = {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}
        picture.save(out, image_format, **(options if image_format == "JPEG" else {}))
        _recipe()(out.getvalue(), 32, limits)
        _recipe()(out.getvalue()[: len(out.getvalue()) // 2], 32, limits)


def _recipe() -> Decode:
    return load_decoder("pixsift.adapters.decode.recipe:decode_image")


def _take_over_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Move the protocol off 0 and 1, because a library might print there."""
    requests = os.fdopen(os.dup(0), "rb", buffering=2**16)
    replies = os.fdopen(os.dup(1), "wb", buffering=2**16)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return requests, replies


def _silence() -> None:
    """Close standard error as well: a compromised child could write to a log through it."""
    sys.stderr.flush()
    os.dup2(1, 2)


if __name__ == "__main__":
    main()
