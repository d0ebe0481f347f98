"""Downloads with every name that S3 allows: whole and verified, or refused in one line."""

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsift.core.copyplan import destination_keys, folded
from pixsift.core.identity import ObjectVersion
from pixsift.errors import PermanentError, RequestError, UserError
from pixsift.operations.download import Piece, fetch_all

HOSTILE = [
    "a" * 1000 + ".jpg", "d" * 1000 + "/x.jpg", "ü" * 130 + ".jpg", "写" * 84 + ".jpg",
    "7.jpg", "7.jpg.part", "7.jpg.part.part", "../up.jpg", "..", ".", "a/..", "/root.jpg",
    "a//b.jpg", "a/", "a", "a/b.jpg", "nul\0.jpg", "\0", "feed\n.jpg", "esc\x1b[2J.jpg",
    "tab\t.jpg",
    "dot.", "dot", "dots...", "space ", "space", "A.jpg", "a.jpg", "a.JPG", "\u00e9.jpg",
    "e\u0301.jpg",
    "con.jpg", "nul", "c:\\x.jpg", "-rf", "~/x.jpg", "$(id).jpg", "x;y.jpg", "x\u202egpj.jpg",
    ".pixsift-unfinished-", ".pixsift-unfinished-x/y.jpg", "snapshot.json", "manifest.parquet",
    "data/train/x.jpg", "x" * 255, "x" * 256, ".jpg", "a.zip", "metadata.parquet",
    "METADATA.parquet",
]  # fmt: skip


_SHORT_PATHS = st.text(alphabet="aA./\0e\u0301\u00e9 ", min_size=1, max_size=6)


def pieces_of(paths: list[str]) -> dict[str, bytes]:
    return {path: f"content of {path!r}".encode() for path in paths}


def as_pieces(contents: dict[str, bytes]) -> list[Piece]:
    return [
        Piece(path, hashlib.sha256(content).hexdigest(), lambda content=content: content)  # type: ignore[misc]
        for path, content in contents.items()
    ]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_fetch_all__a_snapshot_of_hostile_keys_is_whole(tmp_path: Path) -> None:
    """The oracle reads the folder: one file for each image, each with its own bytes."""
    keys = HOSTILE.copy()
    for seed in range(5):
        random.Random(seed).shuffle(keys)
        sources = [(ObjectVersion("raw", key, f"v{i}"), "train") for i, key in enumerate(keys)]
        paths = destination_keys(sources, prefix="name/snapshot/")
        contents = pieces_of(paths)
        folder = tmp_path / str(seed)
        assert fetch_all(as_pieces(contents), folder) == (len(keys), [])
        assert {path: (folder / path).read_bytes() for path in paths} == contents
        assert len(files_in(folder)) == len(keys)
        assert fetch_all(as_pieces(contents), folder) == (0, [])


def test_destination_keys__tell_hostile_keys_apart_on_every_file_system() -> None:
    sources = [(ObjectVersion("raw", key, "v"), "train") for key in HOSTILE]
    paths = destination_keys(sources)
    assert len({folded(path) for path in paths}) == len(HOSTILE)
    assert all(len(part.encode()) <= 200 for path in paths for part in path.split("/"))
    assert not any(c in path for path in paths for c in "\0\n\x1b\t\\")


@settings(max_examples=60)
@given(
    st.lists(
        st.text(alphabet="aA./\0e\u0301\u00e9 ", min_size=1, max_size=6), unique=True, max_size=12
    )
)
def test_fetch_all__of_an_older_snapshot_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    """Paths as they come, without ``destination_keys``: older releases kept more of a key."""
    folder = tmp_path_factory.mktemp("older")
    contents = pieces_of(paths)
    try:
        fetched, gone = fetch_all(as_pieces(contents), folder)
    except UserError as refused:
        assert "\n" not in str(refused)
        return
    assert fetched == len(paths) and not gone
    assert sorted(path.read_bytes() for path in files_in(folder)) == sorted(contents.values())


def test_fetch_all__part_twins_keep_their_own_bytes(tmp_path: Path) -> None:
    contents = pieces_of([f"{i}.jpg{suffix}" for i in range(16) for suffix in ("", ".part")])
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        fetch_all(as_pieces(contents), folder)
        assert {path: (folder / path).read_bytes() for path in contents} == contents


@pytest.mark.parametrize("length", [251, 256, 1020])
def test_fetch_all__a_long_component_of_an_older_snapshot_has_its_place(
    tmp_path: Path, length: int
) -> None:
    contents = pieces_of(["x" * length + ".jpg", "y" * length + "/z.jpg", "short.jpg"])
    assert fetch_all(as_pieces(contents), tmp_path) == (3, [])
    assert sorted(p.read_bytes() for p in files_in(tmp_path)) == sorted(contents.values())


def test_fetch_all__two_names_that_are_one_file_are_refused(tmp_path: Path) -> None:
    """A link stands for a file system without case: both names lead to one file."""
    (tmp_path / "A.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(RequestError, match="one file on this file system"):
        fetch_all(as_pieces(pieces_of(["a.jpg", "A.jpg"])), tmp_path)


def test_fetch_all__nothing_unfinished_stays(tmp_path: Path) -> None:
    pieces = [*as_pieces(pieces_of(["a.jpg"])), Piece("b.jpg", "0" * 64, lambda: b"other bytes")]
    with pytest.raises(PermanentError, match=r"b\.jpg"):
        fetch_all(pieces, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not (tmp_path / "b.jpg").exists()
