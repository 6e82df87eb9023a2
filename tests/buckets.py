"""A platform -> a bucket of a test's own on its S3 server, which may become one that its key can only read."""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from tests.platform import Platform


@dataclass(frozen=True)
class Bucket:
    name: str
    s3: Any  # boto3 makes the class at run time

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def keys(self) -> set[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def read_only(self) -> AbstractContextManager[None]:
        return self._refused(["s3:PutObject", "s3:DeleteObject"], "*")

    def withheld(self, key: str) -> AbstractContextManager[None]:
        """This object alone, from everybody."""
        return self._refused(["s3:GetObject"], key)

    @contextmanager
    def _refused(self, actions: Sequence[str], key: str) -> Iterator[None]:
        """What S3 calls a policy; that of a user would be answered the same way."""
        refused = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": actions,
            "Resource": [f"arn:aws:s3:::{self.name}/{key}"],
        }
        policy = {"Version": "2012-10-17", "Statement": [refused]}
        self.s3.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))
        yield
        self.s3.delete_bucket_policy(Bucket=self.name)


def new_bucket(platform: Platform) -> Bucket:
    s3 = boto3.client(
        "s3",
        endpoint_url=platform.s3,
        aws_access_key_id=platform.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=platform.environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    made = Bucket(f"test-{uuid.uuid4().hex[:12]}", s3)
    s3.create_bucket(Bucket=made.name)
    return made


@pytest.fixture
def bucket(platform: Platform) -> Bucket:
    return new_bucket(platform)
