"""s3://bucket/folder <-> the files below it: their names, and the bytes behind each."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from ops.ask import s3_client
from stages.mlflow_client import redacted
from stages.params import StageError

SECONDS = 20  # for which a server may be silent
ATTEMPTS = 5
READS = 3  # of a file whose answer breaks off; botocore tries again only until it begins
ABSENT = ("404", "NoSuchKey")
OF_ONE_FILE = ("AccessDenied", "InvalidObjectState", "InvalidRequest")  # archived, or with a key of its own
THERE = ("PreconditionFailed", "ConditionalRequestConflict")  # somebody was first, or is at it


class Withheld(StageError):
    """The server hands out others, but not this file."""


@dataclass(frozen=True)
class Stored:
    name: str  # below the folder, with /
    etag: str  # changes with the content
    size: int = 0  # bytes


@dataclass(frozen=True)
class Folder:
    """It travels to other machines, keys included, and connects where it is used. Every method raises StageError."""

    url: str  # s3://bucket/folder, without / at the end
    environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def at(cls, url: str) -> Self:
        """Raises StageError unless it is s3://bucket or s3://bucket/folder."""
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", url):
            raise StageError(f"{url}: no folder on S3; give s3://BUCKET/FOLDER")
        return cls(url.rstrip("/"), {name: value for name, value in os.environ.items() if name.startswith("AWS_")})

    def __reduce__(self) -> tuple[type[Self], tuple[str, Mapping[str, str]]]:
        """Without the connection, which is this process's own."""
        return type(self), (self.url, self.environment)

    def holds(self, other: "Folder") -> bool:
        return f"{other.url}/".startswith(f"{self.url}/")

    def listed(self) -> list[Stored]:
        """Sorted by name."""
        with s3_errors(self.url):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            found = [entry for page in pages for entry in page.get("Contents", [])]
        files = (Stored(one["Key"].removeprefix(self._prefix), one["ETag"].strip('"'), one["Size"]) for one in found)
        return sorted((file for file in files if file.name), key=lambda file: file.name)

    def read(self, name: str) -> bytes | None:
        """None: there is no such file. Raises Withheld."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 -- half a second

        with s3_errors(self.url):
            try:
                return self._whole(self._prefix + name)
            except ClientError as error:
                code = str(error.response["Error"].get("Code"))
                if code in ABSENT:
                    return None
                if code in OF_ONE_FILE or code.startswith("KMS."):
                    raise Withheld(f"refused: {code}") from None
                raise

    def _whole(self, key: str) -> bytes:
        from botocore.exceptions import (  # noqa: PLC0415
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        for _ in range(READS - 1):
            with suppress(IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                return self._once(key)
        return self._once(key)

    def _once(self, key: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return content

    def write(self, name: str, content: bytes, *, only_first: bool = False) -> None:
        """Whole or not at all. only_first: what is there already stays, whoever else writes at the same time."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        condition = {"IfNoneMatch": "*"} if only_first else {}
        with s3_errors(self.url):
            try:
                self._s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, **condition)
            except ClientError as error:
                if not only_first or error.response["Error"].get("Code") not in THERE:
                    raise

    @cached_property
    def _s3(self) -> Any:
        return s3_client(self.environment, SECONDS, ATTEMPTS)

    @property
    def _bucket(self) -> str:
        return self.url.split("/")[2]

    @property
    def _prefix(self) -> str:
        folder = "/".join(self.url.split("/")[3:])
        return f"{folder}/" if folder else ""


@contextmanager
def s3_errors(url: str) -> Iterator[None]:
    """StageError in place of botocore's."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- half a second

    try:
        yield
    except ClientError as error:
        answer = error.response["Error"]
        raise StageError(f"{url}: refused: {answer.get('Code')}: {answer.get('Message', '')}".rstrip(": ")) from None
    except (BotoCoreError, ValueError) as error:  # ValueError: the address is none
        why = redacted(" ".join(str(error).split()))
        raise StageError(f"{url}: {why}; check AWS_ENDPOINT_URL_S3 and the keys") from None
