"""The request that docs/selection.md shows is one that pixsift accepts."""

import json
import re
from pathlib import Path

from pixsift.messages import SnapshotRequest2

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "selection.md"


def test_page__shows_a_request_of_the_second_version() -> None:
    shown = re.findall(r"```json\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    request = SnapshotRequest2.model_validate(json.loads(shown[0]))
    assert request.select.strategy == "auto"
    assert request.select.k == 500
