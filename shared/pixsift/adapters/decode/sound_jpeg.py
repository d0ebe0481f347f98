"""Repairs JPEGs that decoders warn about although every pixel is right.

Webcams leave a few stray bytes before restart markers, interrupted uploads lack only the end
marker, writers leave junk between header segments. Damage gives the same warnings, so a copy
without the fault is made, and the file counts as sound only if that copy decodes without any
warning.

Rules that tell the two apart: up to ``MAX_STRAY_BYTES`` per restart interval, each interval decoded
by itself (damage to one byte leaves 19 to 160 bytes over, p5 to p95); an end marker that alone is
missing (of 1,440 files cut at random none decodes cleanly with one put behind it).
"""

import re
import struct
from dataclasses import dataclass, field
from typing import Final

import simplejpeg

from pixsift.adapters.decode.formats import RefusedError

MAX_STRAY_BYTES: Final = 9
"""Before one restart or end marker."""
MAX_INTERVALS: Final = 20_000
_MAX_SIDE: Final = 65_500
_COLOR_SPACES: Final = {1: "GRAY", 3: "RGB", 4: "CMYK"}

_START, _END, _SCAN, _TABLES, _INTERVAL = 0xD8, 0xD9, 0xDA, 0xDB, 0xDD
_RESTARTS: Final = range(0xD0, 0xD8)
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended sequential, progressive: what the decoder knows."""
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_NEXT_MARKER: Final = re.compile(rb"\xff+[^\x00\xff]")
_END_OF_DATA: Final = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_RESTART: Final = re.compile(rb"\xff+([\xd0-\xd7])")
_LEFT_OVER: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


@dataclass(slots=True)
class SoundCopy:
    """A JPEG with the same pixels that decodes without warnings, and what was repaired."""

    blob: bytes
    found: dict[str, float] = field(default_factory=dict)
    """``stray_bytes``, ``header_warning``, ``missing_end``, ``padded``: how many, or 1."""


def sound_copy(blob: bytes, warning: str) -> SoundCopy:
    """A copy that decodes cleanly. Raises RefusedError with the decoder's ``warning`` otherwise."""
    try:
        parts = _Parts(blob)
        if parts.sampling is None or not parts.scans:
            raise _DamagedError("no picture data")
        copy = parts.copy()
    except (_DamagedError, IndexError, struct.error, ValueError) as error:
        raise _refusal(warning, str(error)) from error
    left_over = _complaint(copy, parts.color_space)
    if left_over is None:
        return SoundCopy(copy, parts.found)
    known = _LEFT_OVER.search(left_over)
    if known is None:
        raise _refusal(warning, left_over)
    tail = copy[-2 - int(known[1]) : -2]
    if not tail.strip(b"\x00"):
        parts.found["padded"] = 1.0
    elif len(tail) <= MAX_STRAY_BYTES:
        parts.count("stray_bytes", len(tail))
    else:
        raise _refusal(warning, left_over)
    shorter = copy[: -2 - len(tail)] + copy[-2:]
    if (still := _complaint(shorter, parts.color_space)) is not None and "padded" in parts.found:
        # The decoder may read a few zeros as data before it warns about the rest.
        shorter = copy[:-2].rstrip(b"\x00") + copy[-2:]
        still = _complaint(shorter, parts.color_space)
    if still is not None:
        raise _refusal(warning, still)
    return SoundCopy(shorter, parts.found)


class _DamagedError(Exception):
    """The structure itself is broken."""


class _Parts:
    """Header segments and scans of a JPEG, without what lies between them."""

    def __init__(self, blob: bytes) -> None:
        self.found: dict[str, float] = {}
        self.segments: list[bytes] = []
        """Everything before the first scan, in order."""
        self.scans: list[tuple[list[bytes], bytes, bytes]] = []
        """Of each scan: the segments before it (after the first scan), its header, its data."""
        self.interval = 0
        """MCUs between restart markers; 0: there are none."""
        self.frame = b""
        self.sampling: tuple[int, int] | None = None
        """Largest horizontal and vertical sampling factor."""
        self._read(blob)

    def count(self, name: str, number: float = 1.0) -> None:
        """Add to what was found."""
        self.found[name] = self.found.get(name, 0.0) + number

    @property
    def color_space(self) -> str:
        """What to decode to."""
        return _COLOR_SPACES.get(self.components, "RGB")

    @property
    def components(self) -> int:
        """Color channels: 1, 3 or 4."""
        return self.frame[9] if len(self.frame) > 9 else 0

    @property
    def is_sequential(self) -> bool:
        """Whether one pass holds all bits of a coefficient."""
        return self.frame[1] in _SEQUENTIAL

    def copy(self) -> bytes:
        """All of it again, with restart intervals freed of stray bytes and one end marker."""
        self._check_completeness()
        parts = [b"\xff\xd8", *self.segments]
        for between, header, data in self.scans:
            parts += [*between, header, self._clean(data)]
        return b"".join([*parts, b"\xff\xd9"])

    def _read(self, blob: bytes) -> None:
        at, waiting = 2, self.segments
        while True:
            following = _NEXT_MARKER.search(blob, at)
            if following is None:
                if not self.scans or blob[at:].strip(b"\x00\xff"):
                    raise _DamagedError("no marker where one is due")
                self.found["missing_end"] = 1.0
                return
            if following.start() > at and not (self.scans and waiting is not self.segments):
                self.count("header_warning")
            marker, at = blob[following.end() - 1], following.end()
            if marker == _END:
                return
            if marker in _RESTARTS or marker in (_START, 0x01):
                raise _DamagedError(f"marker {marker:#x} out of place")
            size = int.from_bytes(blob[at : at + 2], "big")
            if size < 2 or at + size > len(blob):
                raise _DamagedError(f"segment {marker:#x} runs past the end")
            segment, at = b"\xff" + bytes([marker]) + blob[at : at + size], at + size
            if marker == _SCAN:
                end = _END_OF_DATA.search(blob, at)
                stop = end.start() if end else len(blob)
                if end is None:
                    self.found["missing_end"] = 1.0
                data = blob[at:stop].rstrip(b"\xff") if end is None else blob[at:stop]
                between = [] if waiting is self.segments else waiting
                self.scans.append((between, self._scan(segment), data))
                waiting, at = [], stop
                if end is None:
                    return
            else:
                waiting.append(self._segment(marker, segment))

    def _segment(self, marker: int, segment: bytes) -> bytes:
        """A header segment; what decoders warn about but understand is corrected."""
        if marker in _FRAMES:
            if self.frame:
                raise _DamagedError("two frames")
            self.frame = segment
            factors = segment[11 : 11 + 3 * segment[9] : 3]
            if len(factors) != segment[9] or not factors:
                raise _DamagedError("frame header")
            self.sampling = max(f >> 4 for f in factors), max(f & 15 for f in factors)
        elif marker == _INTERVAL:
            self.interval = int.from_bytes(segment[4:6], "big")
        elif segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\x00" and segment[9] != 1:
            self.count("header_warning")
            return segment[:9] + b"\x01\x02" + segment[11:]
        elif segment.startswith(b"\xff\xee") and segment[4:9] == b"Adobe" and segment[15] > 2:
            self.count("header_warning")
            usual = 1 if self.components != 4 else 2
            return segment[:15] + bytes([usual]) + segment[16:]
        return segment

    def _scan(self, header: bytes) -> bytes:
        """A scan header; of sequential files the spectral limits are always the same."""
        usual = b"\x00\x3f\x00"
        if self.frame and self.is_sequential and header[-3:] != usual:
            self.count("header_warning")
            return header[:-3] + usual
        return header

    def _check_completeness(self) -> None:
        """A progressive file that is cut after one of its scans decodes without a warning."""
        if self.is_sequential:
            seen = [c for _, header, _ in self.scans for c in header[5 : 5 + 2 * header[4] : 2]]
            if len(set(seen)) < self.components:
                raise _DamagedError("a color channel is missing")
            return
        best: dict[tuple[int, int], int] = {}
        for _, header, _ in self.scans:
            first, last, bits = header[-3:]
            for component in header[5 : 5 + 2 * header[4] : 2]:
                for coefficient in range(first, min(last, 63) + 1):
                    best[component, coefficient] = bits & 15
        ids = self.frame[10 : 10 + 3 * self.components : 3]
        if any(best.get((component, n), 1) for component in ids for n in range(64)):
            raise _DamagedError("the last scans are missing")

    def _clean(self, data: bytes) -> bytes:
        """The data of a scan without stray bytes before its restart markers."""
        if not self.interval or not self.is_sequential or len(self.scans) != 1:
            return data
        pieces = _RESTART.split(data)  # interval, number of its marker, interval, ...
        intervals, numbers = pieces[::2], pieces[1::2]
        width, height = self._size_in_units()
        total = width * height
        if len(intervals) != -(-total // self.interval) or len(intervals) > MAX_INTERVALS:
            raise _DamagedError("restart markers are missing")
        if any(number[0] & 7 != index & 7 for index, number in enumerate(numbers)):
            raise _DamagedError("restart markers are out of order")
        clean = []
        for index, interval in enumerate(intervals):
            units = min(self.interval, total - index * self.interval)
            clean.append(self._clean_interval(interval, units, width))
        marked = [bytes([0xFF, 0xD0 | index & 7]) for index in range(len(numbers))]
        return b"".join(a + b for a, b in zip(clean, [*marked, b""], strict=True))

    def _clean_interval(self, data: bytes, units: int, width: int) -> bytes:
        frame = self._frame_of(units, width)
        color, header = self.color_space, self.scans[0][1]
        before = b"\xff\xd8" + b"".join(
            frame if s == self.frame else s for s in self.segments if s[1] != _INTERVAL
        )

        def complaint(stray: int) -> str | None:
            # The marker may follow a stray 0xff: the cut must not leave half of it.
            kept = data[: len(data) - stray]
            return _complaint(before + header + kept + b"\xff\xd9", color)

        stray, damage = None, ""
        for cut in range(min(MAX_STRAY_BYTES + 1, len(data)) + 1):
            answer = complaint(cut)
            if answer is None:
                stray = cut
            elif _LEFT_OVER.search(answer) is None:
                damage = answer
                break
        if stray is None:
            raise _DamagedError(damage or "more stray bytes than a camera leaves")
        if stray > MAX_STRAY_BYTES:
            raise _DamagedError("more stray bytes than a camera leaves")
        if stray:
            self.count("stray_bytes", stray)
        return data[: len(data) - stray]

    def _size_in_units(self) -> tuple[int, int]:
        """Width and height in MCUs (one block each where a single channel is coded)."""
        assert self.sampling is not None  # noqa: S101 - checked by the caller
        height, width = struct.unpack_from(">HH", self.frame, 5)
        across, down = (1, 1) if self.components == 1 else self.sampling
        return -(-width // (8 * across)), -(-height // (8 * down))

    def _frame_of(self, units: int, width: int) -> bytes:
        """The frame header of a picture that is one restart interval."""
        assert self.sampling is not None  # noqa: S101
        across, down = (1, 1) if self.components == 1 else self.sampling
        if units * 8 * across <= _MAX_SIDE:
            size = struct.pack(">HH", 8 * down, units * 8 * across)
        elif units % width == 0:
            size = struct.pack(">HH", units // width * 8 * down, width * 8 * across)
        else:
            raise _DamagedError("an interval of an odd length")
        return self.frame[:5] + size + self.frame[9:]


def _complaint(blob: bytes, color_space: str) -> str | None:
    """The decoder's warning about the file; None: no warning."""
    try:
        simplejpeg.decode_jpeg(blob, color_space, strict=True, min_factor=8)
    except ValueError as error:
        return str(error)
    return None


def _refusal(warning: str, found: str) -> RefusedError:
    cut = "premature end of jpeg" in warning.lower()
    detail = warning if found in ("", warning) else f"{warning}; {found}"
    return RefusedError("truncated" if cut else "corrupt", detail)
