"""The lines of docs/snapshots.md under "Load one", run with the real libraries on nasty keys."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixsift.core.copyplan import destination_keys
from pixsift.core.identity import ObjectVersion
from pixsift.core.manifest import build_metadata
from pixsift.core.manifest_rows import ManifestRow
from pixsift.core.webdataset import plan_shards, tar_stream

KEYS = (
    "a.jpg", "test/a.jpg", "eval/b.jpg", "dev/c.jpg", "val/d.jpg", "validation/x.jpg",
    "field-test/e.jpg", "robot_test_3/f.jpg", "test2/g.jpg", "train/h.jpg", "testing/u.jpg",
    "evaluation/u.jpg", "valid/u.jpg", "training/z.jpg", "TEST/u.jpg", "train-station/x.jpg",
    "test_1.jpg", "dev-0007.jpg", "a.v1/test/val/b.jpg", "contest/latest/a.jpg",
    "k::l.jpg", "a/b::c/d.jpg", "back\\slash/a.jpg", "archive.zip", "a.tar.gz/x.jpg", "x.tgz",
    "a b/c d.jpg", "\u00fc/\u00e9.jpg", "we#ird/q?x.jpg", "per%20cent/a%2Fb.jpg",
    "star*/br[1].jpg", "~/t.jpg", "noext", "x.dat", "upper.JPG", "http:/x.jpg", "http://h/x.jpg",
    ".hidden/h.jpg", "metadata.parquet", "metadata.csv/x.jpg", "dir.zip/in.jpg", "new\nline.jpg",
    "quote\"\'`.jpg", "__init__/x.jpg", "{brace}/{}.jpg", "$VAR/x.jpg", "picture.csv",
    "data.json/x.jpg", "\U0001f600.jpg", " lead.jpg", "../up.jpg", "a//b.jpg", "long" * 60 + ".jpg",
)  # fmt: skip
ATTRIBUTES = {
    "robot": "r7", "original_file_name": "IMG_11.JPG", "file_name": "x", "mask_file_names": "m",
    "image": "i", "label": "l", "rank": "first", "a::b": "c",
}  # fmt: skip
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "snapshots.md").read_text()


def snapshot(
    folder: Path, splits: Mapping[str, Sequence[str]], formats: Sequence[str] = ("JPEG",)
) -> list[ManifestRow]:
    """A downloaded snapshot: images and metadata, each key in its split."""
    named = [(ObjectVersion("raw", key, "v1"), split) for split in splits for key in splits[split]]
    rows = []
    for rank, ((source, split), path) in enumerate(
        zip(named, destination_keys(named), strict=True)
    ):
        image_format = formats[rank % len(formats)]
        content = encoded(rank, image_format)
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        rows.append(ManifestRow(
            rank=rank, split=split, path=path, source=source, etag="e", size_bytes=len(content),
            content_sha256="", pixel_sha256="", format=image_format, width=8, height=8,
            attributes=ATTRIBUTES, quality={"sharpness": 0.5},
        ))  # fmt: skip
    for split in splits:
        (folder / "data" / split / "metadata.parquet").write_bytes(build_metadata(rows, split))
    return rows


def encoded(rank: int, image_format: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (rank % 256, rank // 256, 7)).save(out, image_format)
    return out.getvalue()


def documented(start: str) -> str:
    """The block of Python in the documentation that begins so."""
    (block,) = [
        b for b in re.findall(r"```python\n(.*?)```", DOCUMENTED, re.S) if b.startswith(start)
    ]
    return str(block)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="pip install datasets: a test dependency")
    datasets.disable_progress_bars()

    def loaded(**options: Any) -> Any:
        return datasets.load_dataset("imagefolder", cache_dir=str(tmp_path / "cache"), **options)

    return loaded


@pytest.mark.filterwarnings("ignore")
def test_load_dataset__every_key_in_a_snapshot_without_splits(load: Any, tmp_path: Path) -> None:
    rows = snapshot(tmp_path / "pallets", {"train": KEYS})
    found = load(data_dir=str(tmp_path / "pallets" / "data"))
    assert set(found) == {"train"}
    assert_whole(found["train"], rows)
    single = load(data_files={"train": str(tmp_path / "pallets" / "data" / "train" / "**")})
    assert_whole(single["train"], rows)


@pytest.mark.filterwarnings("ignore")
def test_load_dataset__every_key_in_every_split(load: Any, tmp_path: Path) -> None:
    splits = {"train": KEYS[0::3], "val": KEYS[1::3], "test": KEYS[2::3]}
    rows = snapshot(tmp_path / "pallets", splits)
    found = load(data_dir=str(tmp_path / "pallets" / "data"))
    names = {"train": "train", "val": "validation", "test": "test"}
    assert set(found) == set(names.values())
    for split, name in names.items():
        assert_whole(found[name], [row for row in rows if row.split == split])


def assert_whole(table: Any, rows: Sequence[ManifestRow]) -> None:
    by_rank = {record["rank"]: record for record in table}
    assert by_rank.keys() == {row.rank for row in rows}
    for row in rows:
        record = by_rank[row.rank]
        assert record["source_uri"] == row.source.uri
        assert record["robot"] == "r7" and record["original_file_name.text"] == "IMG_11.JPG"
        red, green, _ = record["image"].convert("RGB").getpixel((4, 4))
        assert abs(red - row.rank) <= 3 and green <= 3


@pytest.mark.filterwarnings("ignore")
def test_webdataset__the_documented_lines_read_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset", reason="pip install webdataset: a test dependency")
    formats = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
    rows = snapshot(tmp_path / "pallets", {"train": KEYS}, formats)
    for shard in plan_shards(rows, max_bytes=4_000):
        file = tmp_path / "pallets" / shard.path
        file.parent.mkdir(parents=True, exist_ok=True)
        content = tar_stream(shard.rows, lambda r: (tmp_path / "pallets" / r.path).read_bytes())
        file.write_bytes(b"".join(content))
    monkeypatch.chdir(tmp_path)
    found: list[tuple[Any, str]] = []
    lines = documented("from glob import glob").rstrip()
    body, last = lines.rsplit("\n", 1)
    exec(f"{body}\n    found.append(({last.strip()}))", {"found": found})  # noqa: S102
    assert [uri for _, uri in found] == [row.source.uri for row in rows]
    assert all(image.size == (8, 8) for image, _ in found)
