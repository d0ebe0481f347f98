"""Which pairs get a label, and which do not."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixsift.adapters.calibration.labeled_pairs import (
    Frame,
    Measured,
    _open,
    burst_report,
    frames_of,
    label_pairs,
    list_pictures,
    recolor_report,
)
from pixsift.core.second_look import LookRule
from pixsift.errors import UserError

AGREE = LookRule()  # without signals the embedding alone decides


def at(degrees: float) -> NDArray[np.float16]:
    angle = np.deg2rad(degrees)
    return np.array([np.cos(angle), np.sin(angle)], np.float16)


def measured(*entries: tuple[float, int, str, int]) -> Measured:
    """(direction in degrees, picture, "reference" or edit, grade)."""
    result = Measured()
    for degrees, picture, kind, grade in entries:
        result.rows.append(at(degrees))
        result.looks.append(b"")
        result.hashes.append(bytes([picture]))
        result.labels.append((picture, kind, grade))
    return result


def test_label_pairs__edits_are_positive_and_all_pictures_are_distinct() -> None:
    found = measured(
        (0, 0, "reference", -1),
        (10, 0, "crop", 1),
        (20, 1, "reference", -1),
        (90, 2, "reference", -1),
    )
    pairs = label_pairs(found, AGREE, frames=[None] * 3, sequence_gap=10)
    assert pairs.kind == ("crop", "distinct")
    assert pairs.positive.tolist() == [True, False]
    assert pairs.distance == pytest.approx(1 - np.cos(np.deg2rad([10, 20])), abs=1e-3)
    assert pairs.grade.tolist() == [1, -1]
    assert (pairs.distinct, pairs.far_distinct) == (3, 2)  # two of them are far apart


def test_label_pairs__neighbors_in_a_sequence_carry_no_label() -> None:
    found = measured(*((3 * i, i, "reference", -1) for i in range(4)))
    frames = [Frame("a", 0), Frame("a", 5), Frame("a", 10), Frame("b", 3)]
    pairs = label_pairs(found, AGREE, frames=frames, sequence_gap=10)
    assert pairs.distinct == 4  # 0-2 by their gap, and each of the three with the other sequence


def test_label_pairs__the_same_pixels_twice_are_no_distinct_pair() -> None:
    found = measured((0, 0, "reference", -1), (0, 1, "reference", -1))
    found.hashes = [b"same", b"same"]
    assert label_pairs(found, AGREE, frames=[None] * 2, sequence_gap=1).distinct == 0


def test_label_pairs__an_edit_whose_reference_failed_is_left_out() -> None:
    assert label_pairs(measured((0, 0, "crop", 1)), AGREE, frames=[None], sequence_gap=1).kind == ()


def test_recolor_report__other_colors_are_told_and_are_no_labeled_pair() -> None:
    found = measured(
        (0, 0, "reference", -1), (3, 0, "recolored", 120), (30, 0, "recolored", 180)
    )  # fmt: skip
    assert label_pairs(found, AGREE, frames=[None], sequence_gap=1).kind == ()
    report = recolor_report(found, AGREE, epsilon=float(1 - np.cos(np.deg2rad(7))))
    assert [(row["degrees"], row["pairs"], row["duplicates"]) for row in report] == [
        (120, 1, 1.0),
        (180, 1, 0.0),
    ]


def _deep(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x4000, np.uint16)).save(path)


def test_open__sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    _deep(tmp_path / "deep.png")
    assert np.unique(np.asarray(_open(tmp_path / "deep.png"))).tolist() == [0x40]


def test_open__lies_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert _open(tmp_path / "turned.jpg").size == (4, 8)


@pytest.mark.parametrize("blob", [b"BM" + bytes(52), b"\x89PNG\r\n\x1a\n" + bytes(30), b""])
def test_open__a_broken_picture_is_a_users_mistake(blob: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(blob)
    with pytest.raises(UserError, match=r"broken\.png cannot be decoded"):
        _open(tmp_path / "broken.png")


def test_open__so_is_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _deep(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(UserError, match=r"large\.png"):
        _open(tmp_path / "large.png")


def test_burst_report__tells_what_becomes_of_a_burst() -> None:
    found = measured(*((5 * i, i, "reference", -1) for i in range(3)))
    frames = [Frame("a", i) for i in range(3)]
    report = burst_report(found, AGREE, frames, epsilon=float(1 - np.cos(np.deg2rad(7))))
    assert [(row["gap"], row["pairs"], row["duplicates"]) for row in report] == [
        (1, 2, 1.0),
        (2, 1, 0.0),
    ]


def test_frames_of__number_by_name_or_place(tmp_path: Path) -> None:
    paths = [tmp_path / "s1" / n for n in ("2018-12-a_007.png", "2018-12-a_011.png")]
    paths += [tmp_path / "s2" / n for n in ("left.png", "right.png")]
    assert frames_of(paths, tmp_path) == [
        Frame("s1", 7),
        Frame("s1", 11),
        Frame("s2", 0),
        Frame("s2", 1),
    ]


def test_list_pictures__an_empty_or_absent_folder_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="no pictures"):
        list_pictures(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        list_pictures(tmp_path / "absent")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "A.JPG").touch()
    assert [p.name for p in list_pictures(tmp_path)] == ["A.JPG"]
