"""Reads all bits of a deep frame; Pillow itself gives only eight where there are colors."""

import io
import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixsift.adapters.decode.deep import Samples

_BITS_PER_SAMPLE, _PHOTOMETRIC, _NODATA = 258, 262, 42113
_WHITE_IS_ZERO: Final = 0
_LOW_BYTES: Final = {
    "RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B",
    "RGB;16N": f"RGB;16{'B' if sys.byteorder == 'little' else 'L'}",
    "RGBA;16N": f"RGBA;16{'B' if sys.byteorder == 'little' else 'L'}",
    "LA;16B": "RGBA",  # four bytes a pixel, as they lie in the file
}  # fmt: skip
"""Pillow's raw mode that takes the other byte of every sample."""


@dataclass(frozen=True, slots=True, eq=False)
class DeepFrame:
    """Samples of more than eight bits."""

    values: Samples
    """(H, W) or (H, W, 3)."""
    full: float | None
    """The largest value that the file declares; None without a declaration."""
    nodata: float | None = None
    """The file's own value for "no reading"."""
    alpha: NDArray[np.uint8] | None = None
    """(H, W): 255 is opaque."""


def bits_per_channel(image: Image.Image, blob: bytes) -> int:
    """Bits in the file; of more than 8, Pillow often gives only 8."""
    if image.format == "PNG":
        return blob[24]  # bit depth in IHDR
    return int(max(_tags(image).get(_BITS_PER_SAMPLE, (8,))))


def deep_frame(image: Image.Image, blob: bytes, bits: int) -> DeepFrame | None:
    """The samples of a loaded ``image``, or None where it holds eight bits or fewer.

    blob: the file, read once more where Pillow kept only the high bytes.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _of_gray(image, bits)
    if bits != 16 or image.mode not in ("RGB", "RGBA"):
        return None
    opened = Image.open(io.BytesIO(blob), formats=[image.format or "PNG"])
    modes = {_raw_mode(tile) for tile in opened.tile}
    if len(modes) != 1 or (mode := modes.pop()) not in _LOW_BYTES:
        return None  # an unusual layout: the high bytes have to do
    opened.tile = [tile._replace(args=_with_mode(tile.args, mode)) for tile in opened.tile]
    opened.load()
    low = np.asarray(opened)
    if mode == "LA;16B":
        gray = low[..., 0].astype(np.uint16) << 8 | low[..., 1]
        return DeepFrame(gray, 65535.0, alpha=low[..., 2].copy())
    high = np.asarray(image)
    values = high[..., :3].astype(np.uint16) << 8 | low[..., :3]
    alpha = high[..., 3].copy() if image.mode == "RGBA" else None
    return DeepFrame(values, 65535.0, alpha=alpha)


def _of_gray(image: Image.Image, bits: int) -> DeepFrame:
    tags = _tags(image)
    nodata = _number(tags.get(_NODATA))
    values: Samples = np.asarray(image)
    if image.mode == "F":
        return DeepFrame(values, None, nodata)
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        return DeepFrame(values, None, nodata)
    full = float(2 ** min(bits, 16) - 1) if bits > 8 else 65535.0
    if most > full:
        full = 65535.0
    values = values.astype(np.uint16)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = np.uint16(full) - values
        nodata = None if nodata is None else full - nodata
    return DeepFrame(values, full, nodata)


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _number(text: object) -> float | None:
    try:
        return float(str(text).rstrip("\x00 "))
    except ValueError:
        return None


def _raw_mode(tile: Any) -> str:
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])


def _with_mode(args: Any, mode: str) -> Any:
    return _LOW_BYTES[mode] if isinstance(args, str) else (_LOW_BYTES[mode], *args[1:])
