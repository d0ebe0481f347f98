"""Builds the two images of a checkout and pushes them to ECR, or uses those that are there.

The tag is the commit and the build arguments, so that an interrupted deployment continues without
building again. With uncommitted changes the tag is the time.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pixsift.adapters.aws.container_images import Engine, checkout_version
from pixsift.core.deployment import Deployment, Images
from pixsift.errors import PixsiftError
from pixsift.operations.deploy import Tools

DOCKERFILES: Final = {
    "gpu-consumer": "Dockerfile.gpu-consumer", "services": "Dockerfile.services",
}  # fmt: skip
"""Repository, after the stage's prefix -> Dockerfile."""


def build_images(
    wanted: Deployment, checkout: Path, tools: Tools, *, engine: str = "",
    arguments: Mapping[str, str],
) -> Images:  # fmt: skip
    """Both images, by digest. engine: the build tool; empty uses the first that is installed.
    Raises SettingError without a build tool, or when it fails.
    """
    version = checkout_version(checkout)
    tag = tag_of(version, arguments)
    labeled = {**arguments, **({"SOURCE_COMMIT": version} if version else {})}
    uris = {name: tools.images.ensure(f"{wanted.prefix}/{name}") for name in DOCKERFILES}
    found = {name: tools.images.digest(f"{wanted.prefix}/{name}", tag) for name in DOCKERFILES}
    for name in (name for name, digest in found.items() if digest is None):
        builder = Engine.find(engine)
        tools.say(f"{name}: builds")
        builder.build(DOCKERFILES[name], f"{uris[name]}:{tag}", checkout, labeled)
        tools.say(f"{name}: pushes")
        builder.push(f"{uris[name]}:{tag}", tools.images.password())
        found[name] = tools.images.digest(f"{wanted.prefix}/{name}", tag)
        if found[name] is None:
            raise PixsiftError(f"image {uris[name]}:{tag} was pushed, and ECR does not have it")
    for name, digest in found.items():
        tools.say(f"{name}: {digest}")
    return Images(*(f"{uris[name]}@{found[name]}" for name in ("gpu-consumer", "services")))


def tag_of(version: str | None, arguments: Mapping[str, str]) -> str:
    """The images' tag. version: the commit; None with uncommitted changes."""
    if version is None:
        return time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    text = "".join(f"{name}={value}\n" for name, value in sorted(arguments.items()))
    return f"{version[:12]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
