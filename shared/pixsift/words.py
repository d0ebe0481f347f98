"""Reason codes in words, for people.

The ledger stores the codes and programs read them (``--json``, metrics); this module maps them to
words, for every command and page.
"""

from collections.abc import Mapping
from typing import Final

REASON_WORDS: Final[Mapping[str, str]] = {
    # kept and duplicate
    "new": "new",
    "promoted": "took over from a representative that was removed",
    "content": "same bytes",
    "pixels": "same pixels",
    "near": "near-duplicate",
    "near_look": "near-duplicate, confirmed by the second look",
    "better": "better than the image that it is near to, and took its place",
    "near_protected": "near an evaluation set",
    "ruled": "by a ruling",
    # gone
    "deleted": "deleted at its source",
    "expired": "removed by a lifecycle rule",
    "erased": "erased on request",
    "not_found": "no longer at its source",
    # failed
    "access_denied": "access denied",
    "ended_the_process": "every attempt ended the process",
    "gave_up": "every attempt failed",
    "internal_error": "internal error",
    "embed_nonfinite": "the model returned NaN or infinity",
    "embed_zero": "the model returned a zero vector",
    # rejected by the decoder
    "corrupt": "corrupt file",
    "decoder_crash": "the decoder crashed",
    "decoder_memory": "the decoder ran out of memory",
    "decoder_timeout": "decoding took too long",
    "empty": "empty file",
    "not_an_image": "not an image",
    "odd_aspect": "extreme aspect ratio",
    "side_too_long": "width or height too large",
    "too_large": "file too large",
    "too_many_bytes": "file too large",
    "too_many_pixels": "too many pixels",
    "truncated": "truncated file",
    "unsupported_format": "unsupported format",
    "unsupported_mode": "unsupported pixel mode",
    "unsupported_variant": "unsupported variant of its format",
    # rejected by a quality check
    "blank": "no visible content",
    "blocky": "strong compression artifacts",
    "blurred_full": "blurred at full size",
    "motion_blurred": "motion blur",
    "motion_blurred_full": "motion blur at full size",
    "dead_channel": "a color channel is missing",
    "gray_band": "gray band from missing data",
    "odd_size": "very small image",
    "bad_checksum": "wrong checksum in the file",
    "header_warning": "unusual header",
    "missing_end": "end of the file is missing",
    "stray_bytes": "extra bytes in the file",
    "stretched": "contrast was stretched",
    # messages that are not events
    "bad_backfill": "invalid backfill message",
    "bad_bucket": "invalid bucket name",
    "bad_key": "invalid object key",
    "bad_version_id": "invalid version id",
    "foreign_bucket": "no collection reads this bucket",
    "nested_too_deep": "JSON nested too deeply",
    "no_records": "event without records",
    "not_an_event": "not an S3 event",
    "not_json": "not JSON",
}


def in_words(reason: str) -> str:
    """The words for a reason code: ``in_words("content") == "same bytes"``."""
    return REASON_WORDS.get(reason, reason.replace("_", " "))


def words_and_code(reason: str) -> str:
    """``same bytes (content)``, where a reader may need the code; only the words if they match."""
    words = in_words(reason)
    return words if words == reason else f"{words} ({reason})"
