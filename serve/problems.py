"""What a caller did wrong, or the server cannot do -> the one shape of an HTTP error."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Problem(Exception):
    """Becomes {"error": {code, message, request_id}}. Crosses processes as a value, never as a raised exception."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers)

    def __reduce__(self) -> tuple[type["Problem"], tuple[int, str, str, dict[str, str]]]:
        return Problem, (self.status, self.code, self.message, self.headers)

    def body(self, request_id: str) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "request_id": request_id}}


def unavailable(message: str, retry_after: int = 1) -> Problem:
    """503: trying again later may help. retry_after: s."""
    return Problem(503, "unavailable", message, {"Retry-After": str(retry_after)})
