"""The pool: isolation, crashes that cost only their own image, order."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from hostile_decoders import misbehave
from pixsift.adapters.decode import DecodeLimits, DecoderPool, recipe_id, seccomp_available
from pixsift.core.images import DecodedImage, DecodeFailure

LIMITS = DecodeLimits(wall_seconds=1.5, memory_bytes=1 << 29)


def picture(seed: int = 0, image_format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 48), 20 + seed).convert("RGB").save(out, image_format)
    return out.getvalue()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(32, limits=LIMITS, decoder=misbehave) as pool:
        yield pool


def test_recipe_id() -> None:
    assert recipe_id(224) == "px1-224"


def test_decode__nothing(pool: DecoderPool) -> None:
    assert pool.decode([]) == []


@pytest.mark.parametrize(
    ("word", "reason"),
    [("segfault", "decoder_crash"), ("exit", "decoder_crash"), ("hang", "decoder_timeout"),
     ("spin", "decoder_timeout"), ("balloon", "decoder_memory")],
)  # fmt: skip
def test_decode__bad_child_costs_only_its_own_image(
    pool: DecoderPool, word: str, reason: str
) -> None:
    blobs = [picture(n) for n in range(9)]
    blobs[4] = f"{word}\n".encode()
    results = pool.decode(blobs)
    assert [type(result) for result in results[:4] + results[5:]] == [DecodedImage] * 8
    failure = results[4]
    assert isinstance(failure, DecodeFailure)
    assert failure.reason == reason


@pytest.mark.skipif(not seccomp_available(), reason="no libseccomp on this machine")
@pytest.mark.parametrize("name", ["socket", "open", "parent", "write", "fork", "execute", "kill"])
def test_decode__child_cannot_reach_out(pool: DecoderPool, name: str) -> None:
    (result,) = pool.decode([f"try:{name}\n".encode()])
    assert isinstance(result, DecodeFailure)
    assert result.detail == "refused 1"


def test_decode__child_has_no_environment(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with DecoderPool(32, limits=LIMITS, decoder=misbehave, workers=1) as fresh:
        (result,) = fresh.decode([b"try:environment\n"])
    assert isinstance(result, DecodeFailure)
    assert "AWS" not in result.detail
    assert result.detail == "done ['LC_ALL', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS']"
