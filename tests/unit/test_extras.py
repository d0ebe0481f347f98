"""What a process says when an optional package is missing: one line with the extra, no traceback.

The packages are hidden from a real process: None in ``sys.modules`` is what Python takes for "there
is not there".
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pixsift.errors import Remedy, SettingError
from pixsift.extras import require


def test_require__names_what_is_missing_and_the_extra() -> None:
    require("the test", ["pytest"], extra="dev")
    with pytest.raises(SettingError, match="the test needs no_such_package") as told:
        require("the test", ["pytest", "no_such_package"], extra="dev")
    assert told.value.code == "extra_missing"
    assert told.value.remedy == Remedy("install_extra", {"extra": "dev"})


@pytest.mark.parametrize(
    ("entry", "arguments", "hidden", "extra"),
    [
        ("pixsift_consumer.main", [], "torch", "cpu"),
        ("pixsift_consumer.main", [], "efficientnet_lite_pytorch", "cpu"),
        ("pixsift_cli.main", ["collection", "create", "c", "--source", "s3://b/"], "torch", "cpu"),
        ("pixsift_cli.main", ["demo"], "skimage", "local"),
        ("pixsift_cli.main", ["calibrate", "--images", "."], "torch", "cpu"),
    ],
)
def test_main__a_missing_extra_is_one_line_and_status_2(
    entry: str, arguments: list[str], hidden: str, extra: str, tmp_path: os.PathLike[str]
) -> None:
    code = (
        f"import sys; sys.modules[{hidden!r}] = None; sys.argv[1:] = {arguments!r}\n"
        f"from {entry} import main; main()"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PIXSIFT_")
    }
    Image.new("RGB", (64, 64)).save(Path(tmp_path) / "a.png")  # calibrate looks for images first
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "PIXSIFT_MODEL":
                           "efficientnet-lite0", "PIXSIFT_STATE_DIR": "state"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"pixsift[{extra}]" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
