"""``pixsift search``: the kept images nearest to some of yours."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.pool import load_pool
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.config import ModelSettings
from pixsift.core.choosing.similar import most_similar
from pixsift.core.collection import Collection
from pixsift.core.images import DecodedImage, DecodeFailure
from pixsift.errors import RequestError, SettingError
from pixsift.messages import Where
from pixsift.ports import Embedder
from pixsift_cli.common import JsonOption, emit, open_database

_DECODE_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Match:
    """One kept image near the query."""

    uri: str
    distance: float
    """Cosine distance to the nearest of the query's images."""
    nearest_to: str
    """That image's file."""

    def to_json(self) -> dict[str, Any]:
        return {"uri": self.uri, "distance": self.distance, "nearest_to": self.nearest_to}


def register(root: typer.Typer) -> None:
    """Add the commands of this module."""
    root.command()(search)


def search(
    *,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image file; may be repeated.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder of image files.")] = None,
    collection: Annotated[
        str | None, typer.Option(help="Collection to search; default: the only one.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many images.", min=1)] = 10,
    as_json: JsonOption = False,
) -> None:
    """The kept images nearest to some of yours, exactly, by cosine distance."""
    files = _files(image, folder)
    with open_database() as database:
        found = _collection(Ledger(database), collection)
        queries, embedded, failures = embed_files(files, _embedder(found))
        matches = nearest(database, found, queries, [str(path) for path in embedded], k)
    facts = {
        "collection": found.name,
        "matches": [match.to_json() for match in matches],
        "failures": failures,
    }
    lines = [f"{match.distance:.4f}  {match.uri}" for match in matches]
    lines += [f"left out {path}: {reason}" for path, reason in failures.items()]
    emit(facts, as_json, "\n".join(lines))


def embed_files(
    files: Sequence[Path], embedder: Embedder
) -> tuple[NDArray[np.float32], list[Path], dict[str, str]]:
    """Embeddings of the files that are images, (Q, D); those files; why the others are not.

    Decoded in isolated processes by the recipe that judges uploads. Raises UserError when no file
    is an image.
    """
    parts: list[NDArray[np.float32]] = []
    embedded: list[Path] = []
    failures: dict[str, str] = {}
    with DecoderPool(embedder.input_side) as decoder:
        for start in range(0, len(files), _DECODE_AT_ONCE):
            some = files[start : start + _DECODE_AT_ONCE]
            decoded: list[tuple[Path, DecodedImage]] = []
            blobs = read_files(some, failures)
            for path, image in zip(blobs, decoder.decode(list(blobs.values())), strict=True):
                if isinstance(image, DecodeFailure):
                    failures[str(path)] = image.reason
                else:
                    decoded.append((path, image))
            if not decoded:
                continue
            result = embedder.embed([found.model_input for _, found in decoded])
            parts.append(result.embeddings)
            embedded += [decoded[index][0] for index in result.kept_indices]
            failures |= {str(decoded[i][0]): reason for i, reason in result.failures.items()}
    if not embedded:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:3])
        raise RequestError(f"none of {len(files)} files is an image pixsift can read: {reasons}")
    return np.concatenate(parts), embedded, failures


def read_files(paths: Sequence[Path], failures: dict[str, str]) -> dict[Path, bytes]:
    """The bytes of each; why others cannot be read goes into ``failures``."""
    found = {}
    for path in paths:
        try:
            found[path] = path.read_bytes()
        except OSError as error:
            failures[str(path)] = f"unreadable: {error.strerror}"
    return found


def nearest(
    database: Database,
    collection: Collection,
    queries: NDArray[np.float32],
    names: Sequence[str],
    k: int,
) -> list[Match]:
    """The kept images nearest to any of the queries, nearest first."""
    # Queries are rounded as stored embeddings are: an image's distance to itself is 0.
    targets = queries.astype(np.float16).astype(np.float64)
    with tempfile.TemporaryDirectory(prefix="pixsift-") as folder:
        pool = load_pool(
            database, collection.collection_id, collection.generation, collection.seq, Where(),
            spill_dir=Path(folder),
        )  # fmt: skip
        best, cosines = most_similar(pool.rows, targets, targets[:0], k)
        rows = pool.rows.take(best)
        object_ids = [int(object_id) for object_id in pool.object_ids[best]]
    closest = (rows @ (targets / np.linalg.norm(targets, axis=1, keepdims=True)).T).argmax(axis=1)
    sources = Snapshots(database).sources(object_ids)
    return [
        Match(sources[object_id].uri, max(0.0, 1.0 - float(cosine)), names[near])
        for object_id, cosine, near in zip(object_ids, cosines, closest, strict=True)
    ]


def _files(images: Sequence[Path] | None, folder: Path | None) -> list[Path]:
    files = list(images or [])
    if folder is not None:
        if not folder.is_dir():
            raise RequestError(f"--folder {folder}: no such folder")
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        if not path.is_file():
            raise RequestError(f"--image {path}: no such file")
    if not files:
        raise RequestError(
            "nothing to search for: give --image FILE or --folder DIR with files in it"
        )
    return files


def _collection(ledger: Ledger, name: str | None) -> Collection:
    if name is not None:
        return ledger.collection(name)
    every = ledger.collections()
    if len(every) != 1:
        names = ", ".join(found.name for found in every) or "none"
        raise RequestError(f"which collection? There are: {names} (--collection)")
    return every[0]


def _embedder(collection: Collection) -> Embedder:
    settings = ModelSettings()
    embedder = load_embedder(
        settings.model,
        revision=settings.model_revision,
        device=settings.device,
        max_batch=settings.max_batch,
    )
    if embedder.space.space_id != collection.space_id:
        raise SettingError(
            f"collection {collection.name!r} was judged in another embedding space "
            f"({collection.space_id}) than {settings.model} makes ({embedder.space.space_id}): "
            "set PIXSIFT_MODEL to its model (pixsift collection show)"
        )
    return embedder
