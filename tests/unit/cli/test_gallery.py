"""The page of thumbnails is one file, and obeys nothing that a key says."""

from pathlib import Path

from pixsift_cli.gallery import Picture, write_gallery


def test_write_gallery__one_file_and_every_text_escaped(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    pictures = [Picture(b"RIFF", ("<b>new</b>", "s3://raw/<script>.jpg")), Picture(None, ("x",))]
    write_gallery(path, "<i>two</i>", ["a & b"], pictures)
    page = path.read_text("utf-8")
    assert page.count("<img") == 1 and "data:image/webp;base64,UklGRg==" in page
    assert "no thumbnail" in page
    assert "<script" not in page and "<i>" not in page and "<b>new" not in page
    assert "a &amp; b" in page
    assert "http" not in page
