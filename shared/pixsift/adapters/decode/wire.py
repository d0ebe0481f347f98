"""The protocol between pixsift and the decoder: length-prefixed bytes, never pickles. The other
side may have been compromised by the file it decoded, so everything read from it is checked: sizes
and counts, numbers finite, and every name against the list of those that exist.
"""

import json
import math
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any, Final

import numpy as np

from pixsift.core.images import (
    EXIF_ATTRIBUTES,
    FLAGS,
    FORMATS,
    REASONS,
    DecodedImage,
    DecodeFailure,
    DecodeResult,
    ImageFacts,
)
from pixsift.core.quality import METRICS

_HEAD: Final = struct.Struct("<QI")
_SIZE: Final = struct.Struct("<Q")
_MODE: Final = re.compile(r"[A-Za-z0-9;]{1,12}")
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?", re.ASCII
)
_MAX_TEXT: Final = 100
_MAX_PART: Final = 2**31
_MAX_REPLY_PART: Final = 2**25
_MAX_REPLY_PARTS: Final = 64
READY: Final = 0
"""Number of the first frame in each direction: the configuration, and the locks that hold."""


class WireError(Exception):
    """The other side sent what it never should."""


def frame(number: int, parts: Sequence[bytes]) -> Iterator[bytes]:
    """One request or reply as bytes, piece by piece."""
    yield _HEAD.pack(number, len(parts))
    for part in parts:
        yield _SIZE.pack(len(part))
        yield part


def write_frame(stream: IO[bytes], number: int, parts: Sequence[bytes]) -> None:
    """Write one request or reply."""
    stream.writelines(frame(number, parts))
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[int, list[bytes]]:
    """Read one frame of a side that is trusted. Raises EOFError when it has gone."""
    number, parts = _HEAD.unpack(_exactly(stream, _HEAD.size))
    return number, [_part(stream) for _ in range(parts)]


def parse_frame(data: bytearray) -> tuple[tuple[int, list[bytes]], int] | None:
    """The frame at the start of ``data`` and its length, or None while it is not whole.

    Raises WireError as soon as the bytes cannot become a reply: announced data is neither waited
    for nor stored.
    """
    if len(data) < _HEAD.size:
        return None
    number, parts = _HEAD.unpack_from(data)
    if parts > _MAX_REPLY_PARTS:
        raise WireError(f"{parts} parts")
    found, at = [], _HEAD.size
    for _ in range(parts):
        if len(data) - at < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if size > _MAX_REPLY_PART:
            raise WireError(f"part of {size} bytes")
        if len(data) - at < size:
            return None
        found.append((at, at + size))
        at += size
    return (number, [bytes(data[start:end]) for start, end in found]), at


def pack_result(result: DecodeResult) -> bytes:
    """One result as bytes: JSON facts, then the arrays."""
    if isinstance(result, DecodeFailure):
        return _sized(json.dumps({"reason": result.reason, "detail": result.detail}).encode())
    facts = result.facts
    head = {
        "format": facts.format, "width": facts.width, "height": facts.height, "mode": facts.mode,
        "frames": facts.frames, "flags": facts.flags, "captured_at": facts.captured_at,
        "exif": dict(facts.exif), "quality": result.quality,
    }  # fmt: skip
    model_input = np.ascontiguousarray(result.model_input).tobytes()
    parts = (
        json.dumps(head).encode(), result.pixel_sha256, model_input, result.look,
        result.thumbnail_webp,
    )  # fmt: skip
    return b"".join(_sized(part) for part in parts)


def unpack_result(payload: bytes, input_side: int) -> DecodeResult:
    """Read one result and check it. Raises WireError when it is not what a decoder sends."""
    try:
        return _unpack(_split(payload), input_side)
    except WireError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"unreadable result: {type(error).__name__}") from error


def _unpack(parts: list[bytes], input_side: int) -> DecodeResult:
    head: dict[str, Any] = json.loads(parts[0])
    if len(parts) == 1:
        detail = re.sub(r"[^\x20-\x7e]", "?", str(head["detail"]))[:300]
        return DecodeFailure(_one_of(REASONS, head["reason"]), detail)
    _, sha256, model_input, look, thumbnail = parts
    if len(sha256) != 32 or len(model_input) != input_side * input_side * 3:
        raise WireError("wrong array sizes")
    if len(look) > 65_536 or len(thumbnail) > 2**20:
        raise WireError("oversized look or thumbnail")
    captured_at = head["captured_at"]
    if captured_at is not None and not _TIME.fullmatch(captured_at):
        raise WireError("capture time")
    facts = ImageFacts(
        format=_one_of(FORMATS, head["format"]),
        width=_count(head["width"]), height=_count(head["height"]),
        mode=_mode(head["mode"]), frames=_count(head["frames"]),
        flags=tuple(_one_of(FLAGS, flag) for flag in head["flags"]), captured_at=captured_at,
        exif={name: _text(head["exif"][name]) for name in EXIF_ATTRIBUTES if name in head["exif"]},
    )  # fmt: skip
    pixels = np.frombuffer(model_input, np.uint8).reshape(input_side, input_side, 3)
    metrics = {_one_of(METRICS, key): _number(value) for key, value in head["quality"].items()}
    return DecodedImage(facts, sha256, pixels, metrics, look, thumbnail)


def _one_of(names: Collection[str], text: Any) -> str:
    if not isinstance(text, str) or text not in names:
        raise WireError("an unknown name")
    return text


def _mode(text: Any) -> str:
    if not isinstance(text, str) or not _MODE.fullmatch(text):
        raise WireError("not a mode")
    return text


def _text(text: Any) -> str:
    """One line that can be stored and shown; only EXIF has such lines."""
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT or not text.isprintable():
        raise WireError("not a text")
    return text


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 2**31:
        raise WireError("not a count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise WireError("not a finite number")
    return float(value)


def _sized(part: bytes) -> bytes:
    return _SIZE.pack(len(part)) + part


def _split(payload: bytes) -> list[bytes]:
    parts: list[bytes] = []
    at = 0
    while at < len(payload):
        if len(payload) - at < _SIZE.size:
            raise WireError("cut part")
        (size,) = _SIZE.unpack_from(payload, at)
        at += _SIZE.size
        if size > len(payload) - at:
            raise WireError("cut part")
        parts.append(payload[at : at + size])
        at += size
    if len(parts) not in (1, 5):
        raise WireError(f"{len(parts)} parts")
    return parts


def _part(stream: IO[bytes]) -> bytes:
    (size,) = _SIZE.unpack(_exactly(stream, _SIZE.size))
    if size > _MAX_PART:
        raise WireError(f"part of {size} bytes")
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
