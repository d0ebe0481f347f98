"""DINOv2 on tiny random models: loading rules, preprocessing, fidelity. No download."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pixsift.adapters.accelerator.batches import Forward, TorchBatches
from pixsift.adapters.models import dinov2
from pixsift.adapters.models.bake import bake
from pixsift.adapters.models.dinov2 import NORMALIZATION, Dinov2Embedder, hash_weights
from pixsift.adapters.models.load import load_embedder
from pixsift.errors import DependencyDownError, UserError
from tiny_dinov2 import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "dinov2-tiny")


def photos(count: int, side: int = 224) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((side, side))
        )
        for _ in range(count)
    ]


def test_preprocessing__equals_the_reference_processor(tiny: Path) -> None:
    """Resize of a square and normalization, by the numbers of transformers without torchvision."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 301, 3), np.uint8))
    reference = BitImageProcessorPil(
        size={"height": 224, "width": 224},
        do_center_crop=False,
        resample=Image.Resampling.BICUBIC,
        image_mean=list(NORMALIZATION.mean),
        image_std=list(NORMALIZATION.std),
    )
    expected = reference(picture, return_tensors="pt")["pixel_values"]
    ours = TorchBatches(
        forward=lambda batch: batch.flatten(1),
        forward_float32=lambda: lambda batch: batch.flatten(1),
        normalization=NORMALIZATION,
        side=224,
        dimension=3 * 224 * 224,
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_batch=1,
    )
    resized = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC))
    actual = ours._normalize(torch.from_numpy(resized.copy())[None], torch.float32)
    assert float((actual - expected).abs().max()) < 2e-6


@pytest.mark.parametrize(
    ("half", "error"), [((), 1e-5), ((torch.bfloat16,), 0.02)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("registers", [0, 4])
def test_embed__is_the_cls_token_after_the_last_norm(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registers: int,
    half: tuple[torch.dtype, ...],
    error: float,
) -> None:
    # Whatever this processor computes in by itself.
    monkeypatch.setattr(dinov2, "half_precision", lambda device: half)
    folder = save_tiny(tmp_path / "m", registers=registers)
    embedder = Dinov2Embedder(str(folder), device="cpu", max_batch=4)
    assert embedder.dtype == (half[0] if half else torch.float32)
    images = photos(3)
    model = _reference_model(folder, registers)
    mean = torch.tensor(NORMALIZATION.mean).view(3, 1, 1)
    std = torch.tensor(NORMALIZATION.std).view(3, 1, 1)
    pixels = torch.stack(
        [(torch.from_numpy(i.copy()).permute(2, 0, 1) / 255 - mean) / std for i in images]
    )
    with torch.inference_mode():
        cls = model(pixels).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(cls, dim=1).numpy()
    np.testing.assert_allclose(embedder.embed(images).embeddings, expected, atol=error)
    mean_pooled = Dinov2Embedder(str(folder), device="cpu", pooling="mean")
    assert mean_pooled.space.space_id != embedder.space.space_id
    assert not np.allclose(mean_pooled.embed(images).embeddings, expected, atol=0.05)


def _reference_model(folder: Path, registers: int) -> torch.nn.Module:
    from transformers import Dinov2Model, Dinov2WithRegistersModel

    kind = Dinov2WithRegistersModel if registers else Dinov2Model
    model: torch.nn.Module = kind.from_pretrained(folder, attn_implementation="eager")
    return model.eval()


def test_space__follows_the_weights_not_the_folder(tiny: Path, tmp_path: Path) -> None:
    same = save_tiny(tmp_path / "dinov2-tiny")
    other = save_tiny(tmp_path / "other" / "dinov2-tiny", seed=1)
    spaces = [Dinov2Embedder(str(f), device="cpu").space.space_id for f in (tiny, same, other)]
    assert spaces[0] == spaces[1] != spaces[2]


def test_space__of_a_folder_has_no_revision(tiny: Path) -> None:
    """PIXSIFT_MODEL_REVISION may be left over from a repository."""
    spaces = [Dinov2Embedder(str(tiny), revision=r, device="cpu").space for r in ("", "0" * 40)]
    assert spaces[0] == spaces[1]
    assert spaces[0].revision == "local"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"num_attention_heads": 1}, False),
        ({"layer_norm_eps": 1e-3}, False),
        ({"transformers_version": "9.9", "torch_dtype": "float16", "_name_or_path": "x"}, True),
    ],
)
def test_hash_weights__covers_the_architecture_and_not_its_history(
    tiny: Path, tmp_path: Path, change: dict[str, object], same: bool
) -> None:
    folder = save_tiny(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed((config | change).items()))))
    assert (hash_weights(folder) == hash_weights(tiny)) is same


def test_load_embedder__other_weights_than_expected_are_refused(tiny: Path) -> None:
    expected = hash_weights(tiny)
    assert load_embedder(str(tiny), device="cpu", weights_sha256=expected.upper()).input_side == 224
    with pytest.raises(UserError, match=r"have the wrong hash.*PIXSIFT_MODEL_WEIGHTS_SHA256"):
        load_embedder(str(tiny), device="cpu", weights_sha256="0" * 64)


def test_load__pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="no safetensors"):
        load_embedder(str(folder), device="cpu")


@pytest.mark.parametrize("named", ["pytorch_model.bin", "../elsewhere.safetensors", 3])
def test_load__an_index_names_hashed_files_only(tmp_path: Path, named: object) -> None:
    """transformers loads what the index says; weights outside of the hash would pass unseen."""
    folder = save_tiny(tmp_path / "m")
    index = {"metadata": {}, "weight_map": {"embeddings.cls_token": named}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="not safetensors files in"):
        load_embedder(str(folder), device="cpu")


def test_load__corrupt_weights_and_config_are_told_in_a_line(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_embedder(str(folder), device="cpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"patch_size": 0}))
    with pytest.raises(UserError, match="patch_size"):
        load_embedder(str(folder), device="cpu")


def test_load__incomplete_weights_are_refused(tmp_path: Path) -> None:
    """transformers would warn and go on with random numbers."""
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.attention.attention.query.weight", None)
    weights = {k: v for k, v in weights.items() if "layer.1.mlp.fc1" not in k}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="do not fit"):
            load_embedder(str(folder), device="cpu")


def test_load__another_kind_of_model_or_repository_code_is_not_run(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto_map = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    load_embedder(str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    with pytest.raises(UserError, match="not a DINOv2 model"):
        load_embedder(str(folder), device="cpu")
    (folder / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config\.json"):
        load_embedder(str(folder), device="cpu")


def test_load__a_hub_repository_must_be_pinned_by_commit() -> None:
    for revision in ("", "main", "v1.0", "abc123"):
        with pytest.raises(UserError, match="PIXSIFT_MODEL_REVISION"):
            load_embedder("facebook/dinov2-base", revision=revision)


def test_load__a_compiled_model_gives_the_same_rows(tiny: Path) -> None:
    """The eager backend stands in for inductor, which needs a compiler; the graph is the same."""
    plain = Dinov2Embedder(str(tiny), device="cpu", max_batch=2)
    images = photos(2)
    before = plain.embed(images).embeddings
    plain._batches.forward = torch.compile(plain._batches.forward, backend="eager")
    np.testing.assert_allclose(plain.embed(images).embeddings, before, atol=1e-5)


@pytest.mark.parametrize("max_batch", [4, 1024])
def test_load__compiles_every_batch_size_at_start(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, max_batch: int
) -> None:
    calls: list[int] = []

    def compiled(forward: Forward, **options: object) -> Forward:
        def run(batch: torch.Tensor) -> torch.Tensor:
            calls.append(len(batch))
            return torch.ones(len(batch), 1)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    Dinov2Embedder(str(tiny), device="cpu", max_batch=max_batch, compiled=True)
    assert calls == [1 << n for n in range(max_batch.bit_length())]
    assert torch._dynamo.config.recompile_limit >= len(calls)


def test_load__a_model_that_does_not_compile_is_a_users_mistake(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an outcome of every image: torch compiles at the first batch of each size."""

    def compiled(forward: Forward, **options: object) -> Forward:
        def run(batch: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    with pytest.raises(UserError, match=r"C compiler\.\): install.*PIXSIFT_TORCH_COMPILE"):
        load_embedder(str(tiny), device="cpu", max_batch=2, compiled=True)


def test_locate__takes_the_pinned_commit_and_no_pickles_from_the_hub(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    commit = "0123456789abcdef0123456789abcdef01234567"
    embedder = load_embedder("facebook/dinov2-base", revision=commit, device="cpu")
    assert (asked["name"], asked["revision"]) == ("facebook/dinov2-base", commit)
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in patterns)
    assert (embedder.space.model, embedder.space.revision) == ("facebook/dinov2-base", commit)


def test_locate__a_hub_that_does_not_answer_is_a_dependency_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refuse(name: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no cache, no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(DependencyDownError, match="PIXSIFT_MODEL"):
        load_embedder("facebook/dinov2-base", revision="0" * 40, device="cpu")


def test_load__a_compiler_that_is_missing_is_said_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"PIXSIFT_TORCH_COMPILE needs a C\+\+ compiler"):
        Dinov2Embedder("no/model", device="cpu", compiled=True)


def test_hash_weights__unreadable_files_are_a_users_mistake(tiny: Path, tmp_path: Path) -> None:
    """As in a container whose user may not read what root copied in; root here may read all."""
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"model.safetensors cannot be read .* chmod -R a\+rX"):
        hash_weights(tmp_path)


def test_bake__refuses_what_would_not_start(tiny: Path) -> None:
    found = bake(str(tiny), "", "")
    assert bake(str(tiny), "", found) == found
    with pytest.raises(UserError, match="have the wrong hash"):
        bake(str(tiny), "", "0" * 64)
    with pytest.raises(UserError, match="is not pinned"):
        bake("facebook/dinov2-base", "", "")
