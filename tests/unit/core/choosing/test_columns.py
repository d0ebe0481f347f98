"""Columns gathered row by row say what dictionaries would."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.choosing.columns import AttributeColumns, MetricColumns

ROWS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.dictionaries(st.sampled_from("abc"), st.none() | st.text(max_size=2) | st.integers()),
    ),
    max_size=30,
)


@given(ROWS)
def test_attribute_columns__later_goes_before_earlier(rows: list[tuple[int, Any]]) -> None:
    table = AttributeColumns()
    expected: dict[tuple[int, str], str | None] = {}
    for place, attributes in rows:
        table.add(place, attributes)
        for name, value in attributes.items():
            expected[place, name] = None if value is None else str(value)
    columns = table.finish(10)
    assert set(columns) == {name for (_, name), value in expected.items() if value is not None}
    for name, column in columns.items():
        assert list(column.values) == sorted(column.values)
        assert [column.at(i) for i in range(10)] == [expected.get((i, name)) for i in range(10)]


def test_metric_columns__blanks_are_nan() -> None:
    table = MetricColumns()
    table.add(0, {"sharpness": 0.5, "note": "text"})
    table.add(2, {"sharpness": 2, "entropy": None})
    columns = table.finish(3)
    assert list(columns) == ["sharpness"]
    assert np.array_equal(columns["sharpness"], np.array([0.5, np.nan, 2], "f4"), equal_nan=True)
