"""A consumer whose decoder ends the process for some files, as the memory killer would."""

import os
import signal
from collections.abc import Sequence
from unittest.mock import patch

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.core.images import DecodeResult
from pixsift_consumer.main import main

LETHAL = b"lethal"
"""What such a file begins with."""


class LethalPool(DecoderPool):
    """Decodes, unless it is configured to die."""

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        if any(blob.startswith(LETHAL) for blob in blobs):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(blobs)


if __name__ == "__main__":
    with patch("pixsift_consumer.main.DecoderPool", LethalPool):
        main()
