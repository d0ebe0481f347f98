"""A consumer with another model than ``stub``, so that two embedding spaces meet on one bucket."""

from typing import Any

from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.ports import Embedder

SECOND_MODEL = StubEmbedder(dimension=48, seed=8)


def _load(*_: Any, **__: Any) -> Embedder:
    return SECOND_MODEL


if __name__ == "__main__":
    from pixsift_consumer import main as consumer

    consumer.load = _load  # type: ignore[attr-defined]
    consumer.main()
