"""Make the pictures of the docs out of the screenshots that the console's tests leave.

Run the tests first: ``.venv/bin/pytest tests/integration/console``.
"""

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "build" / "console"
SCREENS = ("live", "image", "review", "what-if", "builder")
SIZE = (1200, 750)


def main() -> None:
    """Each screen in light colors, as WebP of at most 100 kB."""
    for name in SCREENS:
        with Image.open(SHOTS / f"{name}-light.png") as shot:
            picture = shot.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
        picture.save(ROOT / "docs" / f"console-{name}.webp", quality=78, method=6)


if __name__ == "__main__":
    main()
