"""The robots' plan: known in number, the same for the same seed, hard in the ways that it says."""

from collections import Counter
from pathlib import Path

import pytest

from pixsift.adapters.local.simulated_camera import load_scenes
from pixsift.core.sources import DEFAULT_KEY_PATTERN, compile_key_pattern, read_key
from pixsift.errors import UserError
from pixsift.operations.demo.robots import DemoPlan, plan_photos, plan_scenes


@pytest.fixture(scope="module")
def plan() -> DemoPlan:
    return plan_scenes(load_scenes(), frames=4)


def test_plan_scenes__counts_are_known(plan: DemoPlan) -> None:
    assert Counter(upload.kind for upload in plan.uploads) == {
        "frame": 3 * (3 * 4 + 1), "copy": 12, "odd key": 3, "blurred": 6, "dark": 3,
        "truncated": 3, "text": 3, "sidecar": 6, "deleted": 3,
    }  # fmt: skip
    assert plan.judged == plan.count() - 6


def test_plan_scenes__keys_are_unique_and_tell_robot_camera_and_time(plan: DemoPlan) -> None:
    keys = [upload.key for upload in plan.uploads]
    assert len(set(keys)) == len(keys)
    pattern = compile_key_pattern(DEFAULT_KEY_PATTERN)
    for upload in plan.uploads:
        if upload.kind == "frame":
            facts = read_key(pattern, upload.key)
            assert facts.attributes["robot"] in plan.by_robot
            assert facts.captured_at is not None


def test_plan_scenes__copies_equal_a_frame_and_frames_equal_nothing(plan: DemoPlan) -> None:
    frames = Counter(u.sha256() for u in plan.uploads if u.kind == "frame")
    assert set(frames.values()) == {1}
    assert all(u.sha256() in frames for u in plan.uploads if u.kind == "copy")


def test_plan_scenes__odd_keys_hold_what_breaks_decoders_of_keys(plan: DemoPlan) -> None:
    odd = [u.key for u in plan.uploads if u.kind == "odd key"]
    assert all(" " in key and "+" in key and not key.isascii() for key in odd)


def test_plan_scenes__the_same_seed_gives_the_same_bytes() -> None:
    scenes = load_scenes()[:3]
    first, second = (plan_scenes(scenes, frames=4, seed=3) for _ in range(2))
    assert [u.sha256() for u in first.uploads] == [u.sha256() for u in second.uploads]
    other = plan_scenes(scenes, frames=4, seed=4)
    assert other.uploads[0].sha256() != first.uploads[0].sha256()


def test_plan_photos__uploads_each_photo_once_beside_the_known_troubles(
    images: Path,
) -> None:
    photos = sorted((images / "photos").rglob("*.jpg"))[:9]
    plan = plan_photos(photos)
    frames = [u for u in plan.uploads if u.kind == "frame"]
    assert sorted(u.body for u in frames if isinstance(u.body, Path)) == photos
    assert plan.count("truncated", "text", "dark") == 9


def test_plan_photos__a_folder_of_rubbish_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "no.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match="can be read as an image"):
        plan_photos([path])
