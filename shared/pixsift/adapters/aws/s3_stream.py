"""Streams of unknown length to S3, through a multipart upload: memory holds one part.

An upload that breaks off is aborted; one that is killed leaves parts that the bucket's lifecycle
rule removes.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pixsift.adapters.aws.client import aws_errors, s3_client
from pixsift.errors import PixsiftError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

DEFAULT_PART_BYTES = 16 * 1024**2
"""10,000 such parts are 156 GiB; S3 accepts parts below 5 MiB only as the last one."""


class StreamWriter:
    """Writes streams to one bucket."""

    def __init__(
        self,
        bucket: str,
        *,
        part_bytes: int = DEFAULT_PART_BYTES,
        client: "S3Client | None" = None,
    ) -> None:
        self._bucket = bucket
        self._part_bytes = part_bytes
        self._client = client or s3_client()

    def write(self, key: str, pieces: Iterable[bytes]) -> tuple[int, str]:
        """Write ``pieces`` to ``key``; bytes written and their SHA-256 in hex.

        What ``pieces`` raises is raised here, after the upload has been aborted.
        """
        digest, size = hashlib.sha256(), 0
        what = f"write s3://{self._bucket}/{key}"
        with aws_errors(what):
            upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)
        where: dict[str, Any] = {
            "Bucket": self._bucket, "Key": key, "UploadId": upload["UploadId"]
        }  # fmt: skip
        try:
            parts: list[CompletedPartTypeDef] = []
            for number, part in enumerate(_parts(pieces, self._part_bytes), start=1):
                digest.update(part)
                size += len(part)
                with aws_errors(what):
                    answer = self._client.upload_part(**where, PartNumber=number, Body=part)
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            with aws_errors(what):
                self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(PixsiftError), aws_errors(f"abort {what}"):
                self._client.abort_multipart_upload(**where)
            raise
        return size, digest.hexdigest()


def _parts(pieces: Iterable[bytes], part_bytes: int) -> Iterator[bytes]:
    """Pieces of exactly ``part_bytes``, and the rest; one empty part for an empty stream."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) > part_bytes:
            yield bytes(buffer[:part_bytes])
            del buffer[:part_bytes]
    yield bytes(buffer)
