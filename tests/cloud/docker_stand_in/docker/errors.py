"""The exceptions that MiniStack catches."""


class DockerException(Exception):  # noqa: N818 - Docker's own names
    """Any of them."""


class NotFound(DockerException):
    """No such container."""


class ImageNotFound(NotFound):
    """No such image."""
