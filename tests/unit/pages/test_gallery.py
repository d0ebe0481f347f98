"""Every page: one file, one style sheet, no script, and nothing in it that a key says."""

from pixsift.pages.document import document, paragraph, section, table
from pixsift.pages.gallery import gallery
from pixsift.pages.pictures import Picture, figures, groups

EVIL = "<script>alert(1)</script>\"'&"


def test_gallery__one_file_and_every_text_escaped() -> None:
    pictures = [
        Picture.inline(b"RIFF", "<b>new</b>", "s3://raw/<script>.jpg"),
        Picture.inline(None, "x"),
    ]
    page = gallery("<i>two</i>", ["a & b"], pictures)
    assert page.count("<img") == 1 and "data:image/webp;base64,UklGRg==" in page
    assert "no thumbnail" in page
    assert "<script" not in page and "<i>" not in page and "<b>new" not in page
    assert "a &amp; b" in page
    assert "http" not in page.replace("http-equiv", "")


def test_document__escapes_titles_tables_and_paragraphs_and_has_the_style() -> None:
    page = document(EVIL, [EVIL], section(EVIL, paragraph(EVIL), table([EVIL], [[EVIL]])))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 7  # the title twice: in the head and on the page
    assert page.count("<style>") == 1 and "color-scheme: light dark" in page


def test_document__allows_pictures_in_files_only_when_asked() -> None:
    assert 'img-src data:"' in document("t", [])
    assert "img-src data: file: 'self'\"" in document("t", [], pictures_in_files=True)


def test_section__without_content_is_nothing() -> None:
    assert section("empty", figures([])) == ""


def test_figures__jpeg_and_webp_are_told_apart() -> None:
    shown = figures([Picture.inline(b"\xff\xd8\xff", "j"), Picture.inline(b"RIFF", "w")])
    assert "data:image/jpeg" in shown and "data:image/webp" in shown


def test_groups__a_picture_and_what_belongs_to_it() -> None:
    lead, other = Picture.file("a b.webp", "kept"), Picture.file(None, EVIL)
    drawn = groups([(lead, [other])])
    assert drawn.index('src="a%20b.webp"') < drawn.index("no thumbnail")
    assert "<script" not in drawn
