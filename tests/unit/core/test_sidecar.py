"""Sidecar files: three forms, one meaning, and no guesses."""

import json

import pytest

from pixsift.core.sidecar import Form, SidecarRow, parse_sidecar
from pixsift.errors import UserError

CSV = 'key,version_id,label,site\r\na.jpg,v1,cat,\r\n"b,c.jpg",,dog,"north, hall 2"\r\n'
RECORDS = [
    {"key": "a.jpg", "version_id": "v1", "label": "cat"},
    {"key": "b,c.jpg", "attributes": {"label": "dog", "site": "north, hall 2"}},
]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (CSV, "csv"),
        ("\ufeff" + CSV, "csv"),  # as spreadsheets save it
        (json.dumps(RECORDS), "json"),
        ("\n".join(map(json.dumps, RECORDS)) + "\n\n", "jsonl"),
    ],
)
def test_parse_sidecar__forms_mean_the_same(text: str, form: Form) -> None:
    rows = parse_sidecar(text, form)
    assert [(r.named, r.attributes) for r in rows] == [
        ((None, "a.jpg", "v1"), {"label": "cat"}),
        ((None, "b,c.jpg", None), {"label": "dog", "site": "north, hall 2"}),
    ]


def test_parse_sidecar__object_by_key_or_uri() -> None:
    text = json.dumps({"a.jpg": {"n": 3, "ok": True, "old": None},
                       "s3://raw/b c.jpg?versionId=v2": {"label": "x"}})  # fmt: skip
    assert parse_sidecar(text, "json") == [
        SidecarRow("'a.jpg'", "a.jpg", None, None, {"n": "3", "ok": "true", "old": None}),
        SidecarRow("'s3://raw/b c.jpg?versionId=v2'", "b c.jpg", "raw", "v2", {"label": "x"}),
    ]
    named = '{"a.jpg": {"version_id": "v1", "bucket": "raw", "attributes": {"label": "x"}}}'
    assert parse_sidecar(named, "json")[0].named == ("raw", "a.jpg", "v1")


def test_parse_sidecar__spaces_and_joiners_of_any_kind_are_text() -> None:
    key, label = "a\u00a0b\u3000c.jpg", "\U0001f468\u200d\U0001f469 x\u2028y\u0020"
    record = {"key": key, label: label}
    text = json.dumps(record, ensure_ascii=False)
    for form in ("json", "jsonl"):
        (row,) = parse_sidecar(f"[{text}]" if form == "json" else text, form)
        assert (row.key, row.attributes) == (key, {label: label})


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("", "csv", "has no records"),
        ("key,label\n", "csv", "has no records"),
        ("key,label,label\na,b,c\n", "csv", "header has a repeated or empty"),
        ("key,\na,b\n", "csv", "header has a repeated or empty"),
        ("key,label\na,b,c\n", "csv", "line 2 has 3 cells, the header 2"),
        ('key,label\na,"b\n', "csv", "line 2"),
        ("label\nb\n", "csv", "line 2 must name its object by either uri or key"),
        ("uri,label\nraw/a.jpg,b\n", "csv", "is not an S3 URI"),
        ("key,label\na,b\na,c\n", "csv", "line 3 names 'a' again, as line 2 did"),
        ("key,label\na,\n", "csv", "line 2 has no attribute"),
        ("key,label\na,b\x00\n", "csv", "line"),
        ("[1]", "json", "record 1 must be a record, not int"),
        ("3", "json", "a list of records, or an object"),
        ("{", "json", "not valid JSON"),
        ("[" * 100_000, "json", "not valid JSON"),
        ('{"key": "a", "label": "x"}\n{', "jsonl", "line 2: not valid JSON"),
        ('[{"key": "a", "label": ["x"]}]', "json", "label must be text or a number, not list"),
        ('[{"key": "a", "label": "\\u0000"}]', "json", "control characters"),
        ('[{"key": "a", "label": "\\ud800"}]', "json", "control characters"),
        ('[{"key": "a\\u0085", "label": "x"}]', "json", "control characters"),
        ('[{"key": "a", "l\\u001b": "x"}]', "json", "without a proper name"),
        ('[{"key": "a", "l\\ud800": null}]', "json", "without a proper name"),
        ('{"a": {"label": "x"}, "a": {"label": "y"}}', "json", "'a' occurs twice in one object"),
        ('{"key": "a", "label": "x", "label": "y"}', "jsonl", "line 1: 'label' occurs twice"),
        ('{"key": "a", "label": "x", "attributes": {"label": "y"}}', "jsonl", "says 'label' twice"),
        ('{"a": {"key": "b", "label": "x"}}', "json", "'a' names its object again, by key"),
        ('{"s3://raw/a": {"version_id": "v", "label": "x"}}', "json", "leave the other names out"),
        ('{"a": 3}', "json", "'a': attributes must be an object"),
        ('[{"key": "a", "": "x"}]', "json", "without a proper name"),
        ('[{"key": "a", "attributes": [1]}]', "json", "must be an object"),
        ('[{"key": true, "label": "x"}]', "json", "key must be text"),
        ('[{"key": "a", "uri": "s3://raw/a", "label": "x"}]', "json", "either uri or key"),
    ],
)
def test_parse_sidecar__refuses_with_the_place(text: str, form: Form, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_sidecar(text, form)
