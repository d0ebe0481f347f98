"""Three simulated robots: what they upload, and the outcomes that the ledger must have.

The plan is made before anything is sent and is known to the last object, so that the demo can be
checked afterwards. The same seed gives the same bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pixsift.adapters.local.simulated_camera import (
    Frame,
    Scene,
    blurred,
    drive,
    nearly_black,
    read_photo,
    tipped_over,
    to_jpeg,
)
from pixsift.errors import RequestError

ROBOTS = ("robot-1", "robot-2", "robot-3")
CAMERA = "cam-front"
_FIRST_FRAME = datetime(2026, 11, 22, 10, 15, 3, 250_000, tzinfo=UTC)
_BETWEEN_FRAMES = timedelta(milliseconds=500)

Kind = Literal["frame", "copy", "odd key", "blurred", "dark", "truncated", "text", "sidecar",
               "deleted"]  # fmt: skip

EXPECTED: dict[Kind, frozenset[str] | None] = {
    "frame": frozenset({"kept/*", "duplicate/*"}),
    # Which of several equal images is kept depends on the order of arrival, which SQS does not
    # guarantee.
    "copy": frozenset({"kept/*", "duplicate/*"}),
    "odd key": frozenset({"kept/*", "duplicate/*"}),
    "blurred": frozenset({"rejected/blurred"}),
    "dark": frozenset({"rejected/black"}),
    "truncated": frozenset({"rejected/truncated"}),
    "text": frozenset({"rejected/not_an_image"}),
    "sidecar": None,
    "deleted": frozenset({"gone/*"}),
}
"""Outcome and reason by kind; None: the ledger must not know the object."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One object to send."""

    key: str
    body: bytes | Path = field(repr=False)
    kind: Kind
    surely_sound: bool = True
    """False for a user's own photo: it must have an outcome, but any outcome is right."""

    def content(self) -> bytes:
        """The bytes, read from the file where it is one."""
        return self.body if isinstance(self.body, bytes) else self.body.read_bytes()

    def sha256(self) -> bytes:
        """Of the content."""
        return hashlib.sha256(self.content()).digest()


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What each robot uploads, in order."""

    by_robot: dict[str, list[Upload]]

    @property
    def uploads(self) -> list[Upload]:
        """All of it."""
        return [upload for uploads in self.by_robot.values() for upload in uploads]

    def count(self, *kinds: Kind) -> int:
        """How many uploads are of these kinds; of all kinds if no kind is given."""
        return sum(1 for upload in self.uploads if not kinds or upload.kind in kinds)

    @property
    def judged(self) -> int:
        """Objects that must have an outcome at the end."""
        return self.count() - self.count("sidecar")


def plan_scenes(scenes: Sequence[Scene], *, frames: int = 24, seed: int = 7) -> DemoPlan:
    """Robots that drive past photographs, three scenes each, and come back to the first one.

    frames: per scene and robot.
    """
    plan = DemoPlan({robot: [] for robot in ROBOTS})
    for index, robot in enumerate(ROBOTS):
        own = scenes[index :: len(ROBOTS)]
        clock = _Clock(robot)
        uploads = plan.by_robot[robot]
        images: list[Frame] = []
        for place, scene in enumerate(own):
            noise = seed * 1_000_003 + index * 10_007 + place * 1_009
            images += [scene.frame(pose, noise + i) for i, pose in enumerate(drive(frames))]
        # The way back past the first scene: other noise and light, but the same pictures.
        revisit = drive(max(1, frames // 4), start=0.1, drift=0.2)
        images += [own[0].frame(pose, seed + 500_009 + i) for i, pose in enumerate(revisit)]
        uploads += [Upload(clock.key(), to_jpeg(image), "frame") for image in images]
        uploads += _specials(clock, images, [u.content() for u in uploads])
    return plan


def plan_photos(photos: Sequence[Path]) -> DemoPlan:
    """Robots that upload a user's own photos unchanged, with the same problem images among them."""
    plan = DemoPlan({robot: [] for robot in ROBOTS})
    for index, robot in enumerate(ROBOTS):
        clock = _Clock(robot)
        own = photos[index :: len(ROBOTS)]
        uploads = plan.by_robot[robot]
        uploads += [
            Upload(clock.key(path.suffix.lower()), path, "frame", surely_sound=False)
            for path in own
        ]
        bodies = [path.read_bytes() for path in own[:24]]
        sound = [(image, body) for body in bodies if (image := read_photo(body)) is not None]
        uploads += _specials(clock, [i for i, _ in sound], [b for _, b in sound], sound=False)
    if not any(upload.kind == "copy" for upload in plan.uploads):
        raise RequestError("none of the first photos can be read as an image: name another folder")
    return plan


def _specials(
    clock: "_Clock", images: Sequence[Frame], bodies: Sequence[bytes], *, sound: bool = True
) -> list[Upload]:
    """The problem images of one robot, with the outcome that each must have."""
    if not images:
        return []
    pick = _Picker(len(images))
    uploads = [Upload(clock.key(), bodies[pick()], "copy", surely_sound=sound) for _ in range(4)]
    uploads += [
        Upload(clock.key(), to_jpeg(blurred(images[pick()])), "blurred", surely_sound=sound)
        for _ in range(2)
    ]
    uploads.append(Upload(clock.key(), to_jpeg(nearly_black(images[pick()])), "dark"))
    jpeg = to_jpeg(images[pick()])
    uploads.append(Upload(clock.key(), jpeg[: len(jpeg) // 2], "truncated"))
    uploads.append(Upload(clock.key(), b"camera offline, retrying\n" * 20, "text"))
    odd = f"{clock.robot}/{CAMERA}/aisle 7 + Gänge №3/{clock.stamp()}.jpg"
    uploads.append(Upload(odd, to_jpeg(images[pick()]), "odd key", surely_sound=sound))
    uploads.append(Upload(clock.key(), to_jpeg(tipped_over(images[pick()])), "deleted"))
    for number in range(2):
        sidecar = json.dumps({"robot": clock.robot, "battery": 0.9 - number / 10}).encode()
        uploads.append(Upload(clock.key(".json"), sidecar, "sidecar"))
    return uploads


class _Clock:
    """Keys with the time of capture, each later than the one before."""

    def __init__(self, robot: str) -> None:
        self.robot = robot
        self._now = _FIRST_FRAME

    def stamp(self) -> str:
        """``2026-11-22T10-15-03.250Z``; each call moves the clock forward."""
        now, self._now = self._now, self._now + _BETWEEN_FRAMES
        return f"{now:%Y-%m-%dT%H-%M-%S}.{now.microsecond // 1000:03d}Z"

    def key(self, suffix: str = ".jpg") -> str:
        """``robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg``."""
        return f"{self.robot}/{CAMERA}/{self.stamp()}{suffix}"


class _Picker:
    """Takes frames in large steps, so that the problem images come from many of them."""

    def __init__(self, count: int) -> None:
        self._count, self._at = count, 1

    def __call__(self) -> int:
        self._at = (self._at + 7) % self._count
        return self._at
