"""Used while a container image is built: adds a model's weights, and fails for a model that could
not start.

``python -m pixsift.adapters.models.bake MODEL REVISION SHA256`` fetches a pinned hub repository
into ``HF_HOME``, or looks at the folder that was copied in. The last two arguments may be empty.
"""

import sys

from pixsift.adapters.models.load import load_embedder
from pixsift.errors import PixsiftError
from pixsift.remedies import one_line
from pixsift.text import printable


def bake(model: str, revision: str, weights_sha256: str) -> str:
    """Load the model as a consumer will; returns the hash of its weights.

    Raises what ``load_embedder`` raises: UserError for a model that is not pinned, or for weights
    that are not the expected ones.
    """
    embedder = load_embedder(
        model, revision=revision, device="cpu", max_batch=1, weights_sha256=weights_sha256
    )
    return embedder.space.weights_sha256


def main() -> None:
    """Print the hash, to be set as ``MODEL_WEIGHTS_SHA256`` of the next build."""
    try:
        found = bake(*sys.argv[1:4])
    except PixsiftError as error:
        sys.exit(f"this model does not go into an image: {one_line(error)}")
    sys.stdout.write(f"weights sha256: {printable(found)}\n")


if __name__ == "__main__":
    main()
