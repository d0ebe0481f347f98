"""DINOv2 (small, base, large, giant, with or without registers) through transformers.

Weights are safetensors only, never pickle; no code of a repository is ever run; a hub repository
is pinned by its commit, and the hash of weights and architecture is part of the embedding space.
The embedding is the CLS token after the last layer norm. Preprocessing is ours: the decoder resizes
the whole frame to a square (the reference processor cuts the borders off, where a robot sees things
too), and normalization is the reference's.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from pixsift.adapters.accelerator.batches import Forward, Normalization, TorchBatches
from pixsift.adapters.accelerator.device import (
    choose_dtype,
    device_errors,
    half_precision,
    pick_device,
    set_threads,
)
from pixsift.adapters.decode.recipe import recipe_id
from pixsift.core.images import Pixels
from pixsift.errors import DependencyDownError, PixsiftError, SettingError
from pixsift.ports import EmbeddingResult, EmbeddingSpace

SIDE = 224
"""timm's default of 518 costs 6 to 8 times the work; 224 is what the throughput figures mean."""
NORMALIZATION = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MODEL_TYPES = ("dinov2", "dinov2_with_registers")
Pooling = Literal["cls", "mean"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
VOLATILE_KEYS = (
    "_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version",
)  # fmt: skip
"""Keys of config.json about its history; every other key may change a vector."""
_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")


class Dinov2Embedder:
    """A DINOv2 model from a local folder or a pinned hub repository."""

    def __init__(
        self,
        name: str,
        *,
        revision: str = "",
        device: str = "auto",
        max_batch: int = 64,
        pooling: Pooling = "cls",
        side: int = SIDE,
        compiled: bool = False,
    ) -> None:
        """name: folder or repository. revision: the hub commit, 40 hex digits.

        Raises UserError for an unpinned repository, a folder without safetensors, another kind of
        model, incomplete weights or a model that does not compile; DependencyDownError when the
        hub does not answer.
        """
        if compiled:
            _check_compiler()
        folder = locate(name, revision)
        config = read_config(folder)
        is_local = Path(name).is_dir()
        if side % config["patch_size"]:
            raise SettingError(
                f"side {side} is not a multiple of the patch size {config['patch_size']}"
            )
        self.input_side = side
        self.batch_size = max_batch
        self.space = EmbeddingSpace(
            model=name.rstrip("/").rsplit("/", 1)[-1] if is_local else name,
            revision="local" if is_local else revision,
            weights_sha256=hash_weights(folder),
            recipe_id=recipe_id(side),
            pooling=pooling,
            dimension=int(config["hidden_size"]),
        )
        target = pick_device(device)
        set_threads()
        model = load_model(folder, config["model_type"])
        forward = _pooled(model, pooling)
        with device_errors():
            self.dtype = choose_dtype(
                model.to(target), forward, half_precision(target), side=side, device=target
            )
        self._batches = TorchBatches(
            forward=forward,
            forward_float32=lambda: _pooled(load_model(folder, config["model_type"]), pooling),
            normalization=NORMALIZATION,
            side=side,
            dimension=self.space.dimension,
            device=target,
            dtype=self.dtype,
            max_batch=max_batch,
        )
        if compiled:
            _compile(self._batches)

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        """images: each (S, S, 3) uint8 with S = ``input_side``."""
        return self._batches.embed(images)


def locate(name: str, revision: str) -> Path:
    """The folder with config and weights, downloaded when ``name`` is a pinned repository."""
    if Path(name).is_dir():
        return Path(name)
    check_pinned(name, revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DependencyDownError(
            f"cannot get {name}@{revision[:12]} from the hub: {error}; "
            "or set PIXSIFT_MODEL to a local folder with config.json and safetensors"
        ) from error


def check_pinned(name: str, revision: str) -> None:
    """Raises UserError unless ``name`` is a repository's and ``revision`` a whole commit id."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise SettingError(f"model {name!r} is neither a folder nor a hub repository (owner/name)")
    if not _COMMIT.fullmatch(revision):
        raise SettingError(
            f"model {name} is not pinned: set PIXSIFT_MODEL_REVISION to the commit (40 hex digits)"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``, checked to be a DINOv2 model's. Raises UserError."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise SettingError(f"{folder} has no readable config.json: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") not in MODEL_TYPES:
        raise SettingError(
            f"{folder} is not a DINOv2 model: model_type must be one of {MODEL_TYPES}"
        )
    config = {"patch_size": 14, "hidden_size": 768, **config}
    for key in ("patch_size", "hidden_size"):
        if type(config[key]) is not int or config[key] < 1:
            raise SettingError(f"{folder}: {key} in config.json is {config[key]!r}, not a size")
    return config


def hash_weights(folder: Path) -> str:
    """Hex SHA-256 over name and content of the safetensors files, in order of name, and what
    config.json says of the architecture: another number of heads over the same weights is another
    model.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SettingError(
            f"{folder} has no safetensors file; pickled weights (.bin, .pt) are not loaded"
        )
    _check_index(folder, {file.name for file in files})
    config = {k: v for k, v in read_config(folder).items() if k not in VOLATILE_KEYS}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in files:
        digest.update(file.name.encode() + b"\0")
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise SettingError(
                f"{file} cannot be read ({error.strerror}): let the user of this process (in the "
                "image: 10001) read it, chmod -R a+rX"
            ) from error
    return digest.hexdigest()


def _check_index(folder: Path, hashed: set[str]) -> None:
    """An index may name only files that were hashed: transformers loads whatever it names, even
    pickles."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise SettingError(f"{index} is not an index of weights: {error!r}") from error
        if not named <= hashed:
            raise SettingError(
                f"{index} names files that are not safetensors files in {folder}: "
                f"{sorted(map(str, named - hashed))[:3]}"
            )


def load_model(folder: Path, model_type: str) -> torch.nn.Module:
    """The model in float32 on the CPU, in evaluation mode. Raises UserError when weights lack."""
    from safetensors import SafetensorError
    from transformers import Dinov2Model, Dinov2WithRegistersModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind: Any = Dinov2Model if model_type == "dinov2" else Dinov2WithRegistersModel
    try:
        model, report = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise SettingError(f"{folder}: the weights cannot be loaded: {error}") from error
    # transformers only warns and goes on with random numbers in place of what it did not find.
    absent = [key for key in report["missing_keys"] if "mask_token" not in key]
    if absent or report["mismatched_keys"]:
        raise SettingError(
            f"{folder}: weights do not fit the model, e.g. "
            f"{(absent or [key[0] for key in report['mismatched_keys']])[:3]}"
        )
    loaded: torch.nn.Module = model.eval()
    return loaded


def _check_compiler() -> None:
    """Before minutes are spent: torch writes C++ for every device and has a compiler build it."""
    wanted = os.environ.get("CXX", "g++")
    if not any(shutil.which(program) for program in (wanted, "c++", "clang++")):
        raise SettingError(
            "PIXSIFT_TORCH_COMPILE needs a C++ compiler, and there is none here (the images have "
            "none): install g++, or leave it off"
        )


def _compile(batches: TorchBatches) -> None:
    """Compile for every batch size now: torch would do it at the first image of each."""
    config = torch._dynamo.config
    # Beyond its limit torch leaves further sizes uncompiled.
    config.recompile_limit = max(config.recompile_limit, len(batches.sizes))
    batches.forward = torch.compile(batches.forward, dynamic=False)
    try:
        with device_errors():
            batches.warm_up()
    except PixsiftError:
        raise
    except Exception as error:  # of dynamo, of inductor, of the compiler it calls
        said = str(error).partition("\n")[0]
        raise SettingError(
            f"the model cannot be compiled ({type(error).__name__}: {said}): install a C compiler "
            "(gcc), or leave PIXSIFT_TORCH_COMPILE off"
        ) from error


def _pooled(model: torch.nn.Module, pooling: Pooling) -> Forward:
    registers = int(getattr(model.config, "num_register_tokens", 0))

    def forward(batch: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = model(pixel_values=batch).last_hidden_state
        return tokens[:, 0] if pooling == "cls" else tokens[:, 1 + registers :].mean(dim=1)

    return forward
