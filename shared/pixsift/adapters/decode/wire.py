"""What crosses the border between us and the decoder: length-prefixed bytes, never pickles.

The far side may have been taken over by the file it decoded, so everything read from it is
checked: sizes, counts, names by pattern, numbers finite.
"""

import json
import math
import re
import struct
from collections.abc import Sequence
from typing import IO, Any, Final

import numpy as np

from pixsift.core.images import DecodedImage, DecodeFailure, DecodeResult, ImageFacts

_HEAD: Final = struct.Struct("<QI")
_SIZE: Final = struct.Struct("<Q")
_NAME: Final = re.compile(r"[A-Za-z0-9_;./+-]{1,40}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_MAX_PART: Final = 2**31


class WireError(Exception):
    """The other side sent what it never should."""


def write_frame(stream: IO[bytes], request: int, parts: Sequence[bytes]) -> None:
    """Write one request or reply."""
    stream.write(_HEAD.pack(request, len(parts)))
    for part in parts:
        stream.write(_SIZE.pack(len(part)))
        stream.write(part)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[int, list[bytes]]:
    """Read one frame. Raises EOFError when the other side has gone."""
    request, count = _HEAD.unpack(_exactly(stream, _HEAD.size))
    if count > 100_000:
        raise WireError(f"{count} parts")
    return request, [_part(stream) for _ in range(count)]


def pack_result(result: DecodeResult) -> bytes:
    """One result as bytes: JSON facts, then the arrays."""
    if isinstance(result, DecodeFailure):
        return _sized(json.dumps({"reason": result.reason, "detail": result.detail}).encode())
    facts = result.facts
    head = {
        "format": facts.format, "width": facts.width, "height": facts.height, "mode": facts.mode,
        "frames": facts.frames, "flags": facts.flags, "captured_at": facts.captured_at,
        "quality": result.quality,
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
        return DecodeFailure(_name(head["reason"]), detail)
    _, sha256, model_input, look, thumbnail = parts
    if len(sha256) != 32 or len(model_input) != input_side * input_side * 3:
        raise WireError("wrong array sizes")
    if len(look) > 65_536 or len(thumbnail) > 2**20:
        raise WireError("oversized look or thumbnail")
    captured_at = head["captured_at"]
    if captured_at is not None and not _TIME.fullmatch(captured_at):
        raise WireError("capture time")
    facts = ImageFacts(
        format=_name(head["format"]), width=_count(head["width"]), height=_count(head["height"]),
        mode=_name(head["mode"]), frames=_count(head["frames"]),
        flags=tuple(_name(flag) for flag in head["flags"][:32]), captured_at=captured_at,
    )  # fmt: skip
    pixels = np.frombuffer(model_input, np.uint8).reshape(input_side, input_side, 3)
    metrics = {_name(key): _number(value) for key, value in head["quality"].items()}
    return DecodedImage(facts, sha256, pixels, metrics, look, thumbnail)


def _name(text: Any) -> str:
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise WireError("not a name")
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
