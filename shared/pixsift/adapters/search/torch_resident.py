"""The exact resident search with its vectors on a torch device."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pixsift.adapters.accelerator.device import device_errors
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.mirror import BLOCK_ROWS
from pixsift.adapters.search.resident import ResidentSearch


class TorchBlocks:
    """Blocks on a torch device, multiplied there in full float32 (never TF32)."""

    def __init__(self, dimension: int, device: str) -> None:
        self._dimension = dimension
        self._device = torch.device(device)
        self._blocks: list[torch.Tensor] = []

    @device_errors()
    def put(self, row: int, vectors: NDArray[np.float32]) -> None:
        """See ``Blocks.put``."""
        block, start = divmod(row, BLOCK_ROWS)
        if block == len(self._blocks):
            self._blocks.append(torch.empty((BLOCK_ROWS, self._dimension), device=self._device))
        self._blocks[block][start : start + len(vectors)] = torch.from_numpy(vectors)

    @device_errors()
    def move(self, source: int, target: int) -> None:
        """See ``Blocks.move``."""
        from_block, from_row = divmod(source, BLOCK_ROWS)
        to_block, to_row = divmod(target, BLOCK_ROWS)
        self._blocks[to_block][to_row] = self._blocks[from_block][from_row]

    @device_errors()
    def hits(
        self, queries: NDArray[np.float32], count: int, least: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """See ``Blocks.hits``."""
        asked = torch.from_numpy(queries).to(self._device)
        # One mask for all blocks, a byte per pair: counting the hits of each block would wait for
        # the device once a block, some 250 times at four million rows.
        near = torch.empty((len(queries), count), dtype=torch.bool, device=self._device)
        for number, start in enumerate(range(0, count, BLOCK_ROWS)):
            block = self._blocks[number][: count - start]
            near[:, start : start + BLOCK_ROWS] = asked @ block.T >= least
        query, row = torch.nonzero(near).cpu().numpy().T
        return query.astype(np.intp), row.astype(np.intp)


def torch_resident_search(
    database: Database, device: str, *, pause: Callable[[str], None] | None = None
) -> ResidentSearch:
    """A resident search on ``device``: ``cpu``, ``cuda``, ``cuda:1``."""
    torch.backends.cuda.matmul.allow_tf32 = False
    return ResidentSearch(
        database, new_blocks=lambda dimension: TorchBlocks(dimension, device), pause=pause
    )
