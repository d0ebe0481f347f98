"""The contact sheet: who is shown where, and that no key can become markup."""

from html.parser import HTMLParser
from typing import Any

from pixsift.core.outcomes import ObjectOutcome
from pixsift.pages.contact_sheet import contact_sheet

EVIL = 'x"><script>alert(1)</script><img src=y onerror=alert(2)>&.jpg'


def row(object_id: int, key: str, outcome: Any, reason: str, **more: Any) -> ObjectOutcome:
    facts: dict[str, Any] = {
        "content_sha256": None, "thumbnail_key": f"thumbnails/{object_id}.webp", "quality": None,
        "representative_object_id": None, "distance": None, **more,
    }  # fmt: skip
    return ObjectOutcome(
        object_id=object_id, bucket="raw", key=key, version_id="v",
        outcome=outcome, reason=reason, **facts,
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def sheet(*rows: ObjectOutcome, **more: Any) -> Tags:
    options: dict[str, Any] = {
        "title": "<b>t</b>", "facts": ["<i>f</i>"],
        "thumbnails": {f"thumbnails/{i}.webp": f"thumbnails/{i}.webp" for i in range(9)}, **more,
    }  # fmt: skip
    tags = Tags()
    tags.feed(contact_sheet(rows, **options))
    return tags


def test_contact_sheet__keys_and_reasons_stay_text() -> None:
    tags = sheet(
        row(1, EVIL, "kept", "new"),
        row(2, EVIL, "rejected", "<script>"),
        row(3, EVIL, "duplicate", "<script>", representative_object_id=1, distance=0.0123),
        row(4, EVIL, "gone", "deleted", thumbnail_key=None),
    )
    names = {tag for tag, _ in tags.seen}
    assert "script" not in names and "i" not in names
    assert all(set(attrs) <= {"loading", "src", "alt"} for tag, attrs in tags.seen if tag == "img")
    assert tags.text.count(EVIL) == 4
    assert "<b>t</b>" in tags.text and "<i>f</i>" in tags.text


def test_contact_sheet__a_path_with_markup_is_quoted() -> None:
    tags = sheet(
        row(1, "a.jpg", "kept", "new", thumbnail_key="k"), thumbnails={"k": 'a"b <c>.webp'}
    )
    (source,) = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
    assert source == "a%22b%20%3Cc%3E.webp"


def test_contact_sheet__duplicates_follow_their_representative_and_the_rest_comes_last() -> None:
    tags = sheet(
        row(1, "lonely.jpg", "kept", "new"),
        row(2, "rep.jpg", "kept", "new"),
        row(3, "dup.jpg", "duplicate", "near", representative_object_id=2, distance=0.0421),
        row(4, "dark.jpg", "rejected", "dark"),
        chosen=frozenset({2}),
    )
    order = [tags.text.index(word) for word in ("rep.jpg", "dup.jpg", "lonely.jpg", "dark.jpg")]
    assert order == sorted(order)
    assert "near-duplicate, cosine distance 0.042" in tags.text
    assert "rejected: dark" in tags.text
    assert tags.text.count("in the snapshot") == 1


def test_contact_sheet__without_a_thumbnail_it_says_so() -> None:
    tags = sheet(row(1, "text.jpg", "rejected", "not_an_image", thumbnail_key=None))
    assert "no thumbnail" in tags.text
    assert not [tag for tag, _ in tags.seen if tag == "img"]
