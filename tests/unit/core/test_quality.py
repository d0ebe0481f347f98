"""Quality: numbers first, verdicts second."""

import numpy as np
import pytest

from pixsift.core.quality import QualityPolicy, judge, measure


def test_judge__black_frame_is_rejected() -> None:
    metrics = measure(np.zeros((20, 30, 3), np.uint8))
    assert judge(metrics, None, QualityPolicy()).rejected_reason == "dark"


@pytest.mark.parametrize("policy", [{"drak": "off"}, {"bright": "maybe"}, {"dark": {"limit": 3}}])
def test_policy__mistakes_are_named(policy: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"quality check"):
        QualityPolicy.from_json(policy)
