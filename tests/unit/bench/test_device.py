"""The benchmark of a GPU, proved on a CPU: the script, its sheet, and the pack of wheels."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from bench import bench_device
from bench.device import gpu_tests, pack
from bench.device.options import Options
from bench.device.sheet import Figure, Sheet, failures, read, summary

ROOT = Path(__file__).resolve().parents[3]


def run_script(out: Path, *arguments: str) -> list[Figure]:
    """``device.sh`` on the CPU with tiny sizes, without a pack; the figures."""
    done = subprocess.run(
        [str(ROOT / "tests" / "bench" / "device.sh"), "--device", "cpu", "--tiny", "--no-compile",
         "--out", str(out), "--pack", str(out / "no-pack"), "--seconds", "1200", *arguments],
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = read(out / "device.jsonl")
    assert all(figure.device.startswith("CPU only") for figure in figures)
    assert all(figure.note == "ended" for figure in figures if figure.name == "phase")
    return figures


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small products: threads would wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_script__measures_on_a_cpu(tmp_path: Path) -> None:
    """The script with one phase, then the other phases that need no consumer, in this process."""
    run_script(tmp_path, "--only", "limits")
    file = tmp_path / "device.jsonl"
    options = Options(
        device="cpu", tiny=True, compiles=False, out=tmp_path, work=tmp_path, phase="",
        device_name=read(file)[0].device,
    )  # fmt: skip
    for phase in ("search", "embedding", "decoding", "choosing"):
        import_module(f"bench.device.{phase}").run(Sheet(file, phase, options.device_name), options)
    figures = read(file)
    assert failures(figures) == []
    told = {figure.name: figure for figure in figures}
    right = {figure.name for figure in figures if figure.goal == "right"}
    assert {"answers, 17,000 x 768", "k-center, picks beside the CPU's, 2,000"} <= right
    assert told["tiny: our Embedder, eager"].limit_name == "the hand-written loop from host arrays"
    assert told["tiny: bare loop, eager"].limit is not None  # the script measured the limits
    assert any("JPEG to tiny's vectors" in name and figure.value for name, figure in told.items())
    document = json.loads((tmp_path / "device.json").read_text())
    assert [each["phase"] for each in document["figures"]] == ["limits"] * len(document["figures"])
    assert "tiny: no figure counts" in (tmp_path / "device.md").read_text()


@pytest.mark.full
def test_script__runs_whole_on_a_cpu(tmp_path: Path) -> None:
    """With consumers as processes: one that loses its device, two that share one."""
    figures = run_script(tmp_path)
    right = {figure.name for figure in figures if figure.goal == "right" and figure.met}
    assert {
        "tests marked gpu",
        "a lost device ends the consumer (only raised: this is a CPU)",
        "the next consumer decides the rest",
        "two consumers: decided once each, nothing kept twice",
    } <= right
    assert sum(figure.name == "phase" for figure in figures) == 8


def test_script__without_a_gpu_says_so_and_measures_nothing(tmp_path: Path) -> None:
    if subprocess.run(["which", "nvidia-smi"], capture_output=True, check=False).returncode == 0:
        pytest.skip("there is a GPU, or its driver")
    path = os.pathsep.join(str(ROOT / name) for name in ("shared", "services", "tests"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/bench/bench_device.py"), "--out", str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "no NVIDIA GPU here: nothing measured" in done.stdout
    assert not (tmp_path / "out").exists()


def test_script__a_phase_that_hangs_is_cut_off_and_keeps_its_figures(tmp_path: Path) -> None:
    path = os.pathsep.join(str(ROOT / name) for name in ("shared", "services", "tests"))
    command = [sys.executable, str(ROOT / "tests/bench/bench_device.py"), "--device", "cpu",
               "--out", str(tmp_path), "--work", str(tmp_path), "--only", "limits,search",
               "--seconds", "7"]  # fmt: skip
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)
    phases = [figure for figure in read(tmp_path / "device.jsonl") if figure.name == "phase"]
    assert [figure.phase for figure in phases] == ["limits", "search"]
    assert phases[0].note.startswith("cut off")
    assert phases[1].note == "left out: no time left"
    assert (tmp_path / "device.md").exists()


def test_gpu_tests__every_reason_for_a_skip_is_counted() -> None:
    output = (
        "PASSED tests/a.py::one[cuda]\n"
        "SKIPPED [3] tests/contract/test_x.py:26: no CUDA device\n"
        "SKIPPED [1] tests/contract/test_y.py:142: the stub has no device\n"
        "1 passed, 4 skipped in 3.21s\n"
    )
    assert gpu_tests.told(output) == (1, {"no CUDA device": 3, gpu_tests.NOT_ON_ANY_DEVICE: 1})


def test_gpu_tests__the_reason_for_good_is_the_one_that_is_told() -> None:
    contract = (ROOT / "tests" / "contract" / "test_embedders.py").read_text()
    assert f'pytest.skip("{gpu_tests.NOT_ON_ANY_DEVICE}")' in contract


def test_sheet__a_line_cut_off_costs_itself_only(tmp_path: Path) -> None:
    file = tmp_path / "device.jsonl"
    sheet = Sheet(file, "search", "some GPU")
    assert sheet.add("rate", 90.0, "images/s", limit=100.0, limit_name="bare", at_least=0.95) == 0.9
    sheet.add("answers", 0, "pairs wrong", goal="right", met=True)
    sheet.add("picks", 3, "picks differ", goal="right", met=False)
    with file.open("a") as stream:
        stream.write('{"phase": "sea')
    figures = read(file)
    assert [figure.name for figure in figures] == ["rate", "answers", "picks"]
    assert [figure.name for figure in failures(figures)] == [
        "picks"
    ]  # a missed speed is not a failure
    assert sheet.known("rate") == 90.0
    assert sheet.known("absent") is None
    text = summary(figures, {"cores": 16})
    assert "| search | rate | 90 | images/s | 100 | bare | 0.9 | >= 0.95 | MISSED |" in text


def test_pack__pins_what_the_constraints_pin() -> None:
    pinned = pack.pinned()
    assert len(pinned) == len(pack.PINNED)
    assert f"boto3=={version('boto3')}" in pinned
    assert not [name for name in pinned if name.startswith(("torch", "transformers", "numpy"))]


def test_pack__trims_a_wheel_and_its_record(tmp_path: Path) -> None:
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/__init__.py", "")
        archive.writestr("thing/huge.a", "x" * 1000)
        archive.writestr("thing-1.0.dist-info/RECORD", "thing/__init__.py,,\nthing/huge.a,,\n")
    pack.trim(wheel, lambda name: name.endswith(".a"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["thing/__init__.py", "thing-1.0.dist-info/RECORD"]
        assert archive.read("thing-1.0.dist-info/RECORD") == b"thing/__init__.py,,\n"


def test_pack__holds_all_that_the_phases_import() -> None:
    """What is neither packed nor comes with torch and transformers must not be needed there."""
    carried = _closure("torch", "transformers") | {pack._plain(name) for name in pack.PINNED}
    absent = sorted(
        module for module, owners in packages_distributions().items()
        if not {pack._plain(owner) for owner in owners} & (carried | {"pixsift"})
    )  # fmt: skip
    assert {"pyarrow", "moto"} <= set(absent)
    names = [f"bench.device.{name}" for name in [*(p.name for p in bench_device.PHASES),
                                                 "consumer_main"]]  # fmt: skip
    names += [file.removesuffix(".py").removeprefix("tests/").replace("/", ".")
              for file in gpu_tests.files()]  # fmt: skip
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        f"for name in {[*names, 'conftest', 'faults.stub_aws']!r}: __import__(name)"
    )
    path = os.pathsep.join(str(ROOT / name) for name in ("shared", "services", "tests"))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def _closure(*names: str) -> set[str]:
    """Distributions that come with these, without extras."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = pack._plain(left.pop())
        if name in found:
            continue
        found.add(name)
        with suppress(PackageNotFoundError):
            for line in requires(name) or ():
                wanted = Requirement(line)
                if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                    left.append(wanted.name)
    return found


def test_pack__unpacks_a_wheel_without_pip(tmp_path: Path) -> None:
    """Modules and their data, programs that run; scripts and headers are left out."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/__init__.py", "")
        program = zipfile.ZipInfo("thing/bin/postgres")
        program.external_attr = 0o100755 << 16
        archive.writestr(program, "#!")
        archive.writestr("thing-1.0.data/platlib/thing/fast.so", "")
        archive.writestr("thing-1.0.data/scripts/thing", "")
        archive.writestr("thing-1.0.dist-info/METADATA", "Name: thing")
    pack.unpack(wheel, tmp_path / "site")
    found = {str(path.relative_to(tmp_path / "site")): path.stat().st_mode & 0o777
             for path in (tmp_path / "site").rglob("*") if path.is_file()}  # fmt: skip
    assert found == {
        "thing/__init__.py": 0o644, "thing/bin/postgres": 0o755, "thing/fast.so": 0o644,
        "thing-1.0.dist-info/METADATA": 0o644,
    }  # fmt: skip


def test_pack__wheels_of_another_python_are_named(tmp_path: Path) -> None:
    (tmp_path / "no_such_thing-1.0-cp27-cp27-manylinux1_x86_64.whl").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"is for Python 2\.7: pack for this one"):
        pack.install(tmp_path, tmp_path / "site")


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("boto3-0.0.1-py3-none-any.whl", False),  # an older one is packed
        ("boto3-9999-py3-none-any.whl", True),
        ("no_such_thing-1.0-py3-none-any.whl", True),
    ],
)
def test_pack__installs_only_what_is_missing_or_older(name: str, lacking: bool) -> None:
    assert pack.lacks(Path(name)) == lacking
