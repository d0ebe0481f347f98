"""The pool: isolation, crashes that cost only their own image, order."""

import io
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hostile_decoders import balloon, misbehave
from pixsift.adapters.decode import process as child_process
from pixsift.adapters.decode import wire
from pixsift.adapters.decode.child import Decode
from pixsift.adapters.decode.pool import (
    DecodeLimits,
    DecoderPool,
    chunk,
    landlock_version,
    recipe_id,
    seccomp_available,
)
from pixsift.adapters.decode.recipe import decode_image
from pixsift.core.images import (
    FLAGS,
    FORMATS,
    REASONS,
    DecodedImage,
    DecodeFailure,
    DecodeResult,
)
from pixsift.errors import DependencyDownError, TransientError

LIMITS = DecodeLimits(wall_seconds=2.0, memory_bytes=1 << 29)


def picture(seed: int = 0, image_format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 48), 20 + seed).convert("RGB").save(out, image_format)
    return out.getvalue()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(32, limits=LIMITS, decoder=misbehave) as pool:
        yield pool


def test_recipe_id() -> None:
    assert recipe_id(224) == "px2-224"


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
@pytest.mark.parametrize(
    "name",
    ["socket", "open", "parent", "write", "fork", "execute", "kill", "starve", "own", "signal",
     "unblock"],
)  # fmt: skip
def test_decode__child_cannot_reach_out(pool: DecoderPool, name: str) -> None:
    (result,) = pool.decode([f"try:{name}\n".encode()])
    assert isinstance(result, DecodeFailure)
    assert result.detail == "refused 1"


def test_allow_lists__know_every_name_that_the_recipe_uses() -> None:
    """A flag or a reason that is missing there would cost its image."""
    folder = Path(child_process.__file__).parent
    sources = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    assert set(re.findall(r'flags\.append\(\s*"(\w+)"', sources)) <= FLAGS
    assert set(re.findall(r'(?:RefusedError|DecodeFailure)\(\s*"(\w+)"', sources)) <= REASONS
    assert set(DecodeLimits().formats) <= set(FORMATS)


@pytest.mark.skipif(not landlock_version(), reason="no Landlock in this kernel")
def test_lock_process__landlock_alone_keeps_files_ports_and_signals_out_of_reach() -> None:
    """Where libseccomp is missing this lock is the only one of its kind."""
    code = (
        "import os, socket\n"
        "from pixsift.adapters.decode import sandbox\n"
        "sandbox._seccomp_rules = lambda: None\n"
        "assert 'landlock' in sandbox.lock_process(1 << 31)\n"
        "def refused(attempt):\n"
        "    try: attempt()\n"
        "    except PermissionError: return True\n"
        "print(refused(lambda: open('/etc/passwd')), refused(lambda: os.listdir('/')),\n"
        "      refused(lambda: os.kill(os.getppid(), 0)),\n"
        "      refused(lambda: os.execv('/bin/true', ['true'])),\n"
        "      refused(lambda: socket.create_connection(('127.0.0.1', 9), 1)))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment, check=True
    )
    since_version = (1, 1, 6, 1, 4)
    expected = [landlock_version() >= since for since in since_version]
    assert [found == b"True" for found in done.stdout.split()] == expected


def test_locks__are_those_that_hold(pool: DecoderPool) -> None:
    locks = pool.locks()
    assert ("seccomp" in locks) == seccomp_available()
    assert ("landlock" in locks) == bool(landlock_version())
    assert ("memory limit" in locks) == (sys.platform == "linux")


def test_decode__child_has_no_environment(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with DecoderPool(32, limits=LIMITS, decoder=misbehave, workers=1) as fresh:
        (result,) = fresh.decode([b"try:environment\n"])
    assert isinstance(result, DecodeFailure)
    assert "AWS" not in result.detail
    assert result.detail == "done ['LC_ALL', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS']"


def test_decode__a_lost_child_is_started_again() -> None:
    before = decoders()
    with DecoderPool(32, limits=LIMITS, workers=1) as pool:
        pool.decode([picture()])
        (lost,) = decoders() - before
        os.kill(lost, signal.SIGKILL)
        (result,) = pool.decode([picture()])
        assert isinstance(result, DecodedImage)
        assert len(decoders() - before - {lost}) == 1


def test_decode__children_that_never_live_are_an_outage() -> None:
    with DecoderPool(32, limits=LIMITS, workers=1, decoder=not_importable()) as pool:
        with pytest.raises(DependencyDownError, match="do not start"):
            pool.decode([picture()])
        with pytest.raises(DependencyDownError):
            pool.ping()


def test_decode__a_child_sees_its_own_images_only() -> None:
    """Two children, and one that reads whatever its pipe brings: nothing of the other's."""
    with DecoderPool(32, limits=LIMITS, workers=2, decoder=misbehave) as pool:
        results = pool.decode([b"eavesdrop\n", *[picture(n) for n in range(7)]])
    assert results[0] == DecodeFailure("corrupt", "read 0")
    assert all(isinstance(result, DecodedImage) for result in results[1:])


def test_decode__a_forged_reply_runs_no_code_and_costs_its_own_image(tmp_path: Path) -> None:
    """What a taken-over child can write: pickles, frames of others, endless announcements."""
    proof = tmp_path / "ran"
    words = [f"forge:{name}:{proof}\n".encode() for name in ("pickle", "number", "parts", "size")]
    blobs = [picture(0), *words, picture(1)]
    with DecoderPool(32, limits=LIMITS, workers=1, decoder=misbehave) as pool:
        results = pool.decode(blobs)
    assert [type(result) for result in results] == [
        DecodedImage, *[DecodeFailure] * len(words), DecodedImage
    ]  # fmt: skip
    assert not proof.exists()


def test_ping__a_child_must_live_not_know_the_format(pool: DecoderPool) -> None:
    pool.ping()
    with DecoderPool(32, limits=replace(LIMITS, formats=("WEBP",)), workers=1) as picky:
        picky.ping()
    with (
        DecoderPool(32, limits=LIMITS, workers=1, decoder=balloon) as ill,
        pytest.raises(DependencyDownError, match="decoder_memory"),
    ):
        ill.ping()


def test_decode__a_stopped_child_is_replaced() -> None:
    """More than a pipe holds: the write would block forever; then a read that would."""
    before = decoders()
    with DecoderPool(32, limits=LIMITS, workers=1) as pool:
        for blob in (bytes(5 * 2**20), picture()):
            pool.ping()
            (stopped,) = decoders() - before
            os.kill(stopped, signal.SIGSTOP)
            started = time.monotonic()
            (result,) = pool.decode([blob])
            assert time.monotonic() - started < 30
            assert isinstance(result, DecodedImage) == (len(blob) < 2**20)
            assert not command_of(stopped)


def test_close__ends_a_child_that_stops_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    before = decoders()
    monkeypatch.setattr(child_process, "_WRITE_SECONDS", 60.0)
    pool = DecoderPool(32, limits=LIMITS, workers=1)
    pool.ping()
    (stopped,) = decoders() - before
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        blocked = threads.submit(pool.decode, [bytes(5 * 2**20)])
        time.sleep(0.2)
        pool.close()
        with pytest.raises(TransientError):
            blocked.result()
    assert not decoders() - before


def test_close__ends_every_process_and_refuses_more() -> None:
    before = decoders()
    pool = DecoderPool(32, limits=LIMITS, workers=2)
    pool.decode([picture(number) for number in range(8)])
    family = sorted(decoders() - before)
    assert 1 <= len(family) <= 2
    pool.close()
    assert end_soon(family)
    pool.close()
    with pytest.raises(TransientError):
        pool.decode([picture()])


def test_decode__killed_parent_leaves_no_process_behind() -> None:
    """kill -9 of the consumer: its decoders end by themselves."""
    code = (
        "import io, sys, time\n"
        "from PIL import Image\n"
        "from pixsift.adapters.decode.pool import DecoderPool\n"
        "if __name__ == '__main__':\n"
        "    out = io.BytesIO(); Image.new('RGB', (64, 64)).save(out, 'PNG')\n"
        "    pool = DecoderPool(32); pool.decode([out.getvalue()])\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        family = descendants(parent.pid)
        assert len(family) >= 1
        parent.kill()
    assert end_soon(family)


def test_decode__many_threads_share_one_pool(pool: DecoderPool) -> None:
    """Each gets its own answers, in its own order."""
    sizes = [(number + 10, 20) for number in range(24)]

    def ask(size: tuple[int, int]) -> tuple[int, int]:
        out = io.BytesIO()
        Image.new("RGB", size, "red").save(out, "PNG")
        (result,) = pool.decode([out.getvalue()])
        assert isinstance(result, DecodedImage)
        return result.facts.width, result.facts.height

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, sizes)) == sizes


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00" * 8, b"\xff" * 40, struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 9**9)],
)
def test_unpack_result__what_a_hijacked_child_may_send(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.unpack_result(payload, 32)


def test_unpack_result__hostile_facts_are_refused() -> None:
    image = decode_image(picture(), 32, LIMITS)
    assert isinstance(image, DecodedImage)
    facts = image.facts
    for change in (
        {"format": "<script>"}, {"width": 0}, {"width": 2**40}, {"mode": "x" * 99},
        {"captured_at": "yesterday"}, {"flags": ("a b",)},
    ):  # fmt: skip
        bad = replace(image, facts=replace(facts, **change))
        with pytest.raises(wire.WireError):
            wire.unpack_result(wire.pack_result(bad), 32)
    for quality in ({"sharpness": float("nan")}, {"a b": 1.0}):
        bad = replace(image, quality=quality)
        with pytest.raises(wire.WireError):
            wire.unpack_result(wire.pack_result(bad), 32)
    with pytest.raises(wire.WireError):
        wire.unpack_result(wire.pack_result(image), 31)


def test_chunk__keeps_order_and_bounds() -> None:
    blobs = [bytes(n) for n in (10, 10, 5 * 2**20, 10, 10, 10)]
    chunks = chunk(blobs, 2)
    assert [index for members in chunks for index in members] == list(range(6))
    assert all(sum(len(blobs[i]) for i in members) <= 4 * 2**20 or len(members) == 1
               for members in chunks)  # fmt: skip
    assert chunk([b"x"] * 100, 2)[0] == list(range(8))
    assert chunk([b"x"], 8) == [[0]]


def not_importable() -> Decode:
    def inner(blob: bytes, input_side: int, limits: DecodeLimits) -> DecodeResult:
        raise AssertionError

    return inner


def decoders() -> set[int]:
    return {pid for pid in children_of(os.getpid()) if "decode.child" in command_of(pid)}


def children_of(pid: int) -> list[int]:
    """By every process's own word: the kernel's list of children skips some while others end."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found.append(int(process.name))
    return found


def descendants(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [grand for child in found for grand in descendants(child)]


def end_soon(family: list[int]) -> bool:
    """Whether all of them end: the last ones notice a moment later that the others have gone."""
    deadline = time.monotonic() + 15
    while any(command_of(pid) for pid in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def command_of(pid: int) -> str:
    """The command line; empty for a process that has ended, zombies included."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\x00", b" ").decode()
    except OSError:
        return ""
