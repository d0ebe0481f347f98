"""Loads and checks the embedder of a process's settings. Consumer, command and server all use it,
so each refuses unexpected weights, pixels of another recipe, and another embedding space than the
collection's.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from pixsift.adapters.decode.pool import recipe_id
from pixsift.adapters.models.load import load_embedder
from pixsift.core.collection import Collection
from pixsift.errors import Remedy, SettingError
from pixsift.ports import Embedder


class ModelValues(Protocol):
    """The settings of the model (``pixsift.config.ModelSettings``)."""

    @property
    def model(self) -> str: ...
    @property
    def model_revision(self) -> str: ...
    @property
    def model_weights_sha256(self) -> str: ...
    @property
    def torch_compile(self) -> bool: ...
    @property
    def device(self) -> str: ...
    @property
    def max_batch(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model and how it runs."""

    name: str
    revision: str = ""
    weights_sha256: str = ""
    """Hex digest that the weights must have; "" for any."""
    device: str = "auto"
    max_batch: int = 16
    compiled: bool = False

    @classmethod
    def of(cls, settings: ModelValues) -> "ModelChoice":
        """The model of the settings."""
        return cls(
            name=settings.model,
            revision=settings.model_revision,
            weights_sha256=settings.model_weights_sha256,
            device=settings.device,
            max_batch=settings.max_batch,
            compiled=settings.torch_compile,
        )

    def named(self, name: str | None) -> "ModelChoice":
        """The same for another model; the expected hash is that of the model in the settings."""
        if name is None or name == self.name:
            return self
        return replace(self, name=name, weights_sha256="")


def load(choice: ModelChoice) -> Embedder:
    """The embedder. Raises SettingError when it is unknown, not installed, has other weights than
    expected, or wants pixels that this decoder does not make."""
    embedder = load_embedder(
        choice.name,
        revision=choice.revision,
        device=choice.device,
        max_batch=choice.max_batch,
        weights_sha256=choice.weights_sha256,
        compiled=choice.compiled,
    )
    made = recipe_id(embedder.input_side)
    if embedder.space.recipe_id != made:
        raise SettingError(
            f"model {choice.name} expects pixels by recipe {embedder.space.recipe_id}, this "
            f"decoder makes {made}: use the release that wrote it"
        )
    return embedder


def load_for(choice: ModelChoice, collection: Collection) -> Embedder:
    """The embedder; its vectors must be comparable with the collection's."""
    embedder = load(choice)
    check_space(embedder, collection, choice.name)
    return embedder


def check_space(embedder: Embedder, collection: Collection, name: str) -> None:
    """Raises SettingError where the embedder's vectors cannot be compared with the collection's.
    name: the model's name in the settings.
    """
    if embedder.space.space_id != collection.space_id:
        raise SettingError(
            f"collection {collection.name!r} uses another embedding space "
            f"({collection.space_id}) than {name} makes ({embedder.space.space_id})",
            code="other_space",
            remedy=Remedy("use_its_model", {"collection": collection.name}),
        )
