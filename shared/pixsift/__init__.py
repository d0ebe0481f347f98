"""pixsift selects training images from what robot cameras upload.

``pixsift.curate(folder, k=...)`` judges a folder of pictures and chooses from it. It is loaded when
it is first used: importing pixsift imports nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixsift.curation import Curation, curate

__version__ = "0.1.0"
__all__ = ["Curation", "__version__", "curate"]


def __getattr__(name: str) -> Any:
    if name in ("curate", "Curation"):
        from pixsift import curation

        return getattr(curation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
