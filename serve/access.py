"""Keys and tokens -> callers with a role, let in as often as the rate allows; a path that nobody opened is closed."""

import hashlib
import hmac
import ipaddress
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jwt
import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import Problem
from serve.settings import Settings
from serve.static import FILES

Role = Literal["predict", "admin", "metrics"]  # admin may do all that the others may

PROBES = frozenset({"/health", "/livez", "/ready"})  # they have no key; any other path needs one, known or not,
# but for the page, which a person must see to be asked for a key
ADMIN = frozenset({"/models/load"})
METRICS = "/metrics"
LATER = "/ws/"  # a browser's WebSocket cannot set a header: its key comes in the first message
LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
RATE_HEADERS = (LIMIT, REMAINING, RESET, "Retry-After")
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
OPENINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
FAILURES = limits.parse("60/minute")  # wrong keys and tokens an address may try, whatever RATE_LIMIT says
LEEWAY = 10  # s between the clocks of who makes a token and this one


@dataclass(frozen=True)
class Caller:
    name: str  # for limits and logs, and no secret: "API_KEYS 1", "token of anna"
    role: Role


class Guarded:
    """Lets in who has a key or a token and stays within the rate; the app finds the Caller in scope["state"]."""

    def __init__(self, app: ASGIApp, access: "Access", settings: Settings) -> None:
        self._app = app
        self._access = access
        self._origins = settings.cors_origins
        self._keyless = settings.is_keyless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_open(route_path(scope))):
            await self._app(scope, receive, send)
            return
        path, headers = route_path(scope), Headers(scope=scope)
        if not path.isprintable():  # a route's pattern ends before a line feed: /models/load%0A is /models/load to it
            raise Problem(404, "not_found", "no such path")
        if scope["type"] == "websocket" and not is_own_page(headers, self._origins):
            raise Problem(403, "forbidden", "a page of another origin; CORS_ORIGINS lists who may")
        rates = self._access.spend(address_of(scope))
        caller = self._caller(scope, headers)
        if caller is None:
            if scope["type"] != "websocket" or not path.startswith(LATER):
                raise unauthorized("send a key as X-API-Key, or a key or token as Authorization: Bearer")
        elif path in ADMIN and caller.role != "admin":
            raise Problem(403, "forbidden", f"{path} is for admins: a key of ADMIN_KEYS, or a token with that role")
        elif not self._keyless:
            rates = min(rates, self._access.spend(caller.name), key=lambda left: int(left.get(REMAINING, 0)))
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, stamped(send, lambda: rates))

    def _caller(self, scope: Scope, headers: Headers) -> Caller | None:
        if self._keyless:
            return Caller("anyone", "admin" if is_at_the_machine(scope, headers, self._origins) else "predict")
        token = token_of(headers)
        return self._access.admit(token, address_of(scope), route_path(scope)) if token else None


class Access:
    """Keys and tokens -> callers; how many requests each has left. All of it in this process's memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = [
            (hashlib.sha256(key.get_secret_value().encode()).digest(), Caller(f"{name} {number}", role))
            for name, role, keys in _keys_of(settings)
            for number, key in enumerate(keys, 1)
        ]
        # Not the moving window: its memory never forgets an address, and each request walks over all of them.
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._rate = None if settings.rate_limit == "off" else limits.parse(settings.rate_limit)

    def admit(self, token: str, address: str, path: str = "") -> Caller:
        """token: a key, or a JWT. Raises Problem: 401, 403 when it opens no such path, 429 after many wrong ones."""
        if not self._window.test(FAILURES, "failures", address):
            reset = self._window.get_window_stats(FAILURES, "failures", address).reset_time
            retry = {"Retry-After": str(_seconds_to(reset))}
            raise Problem(429, "rate_limited", "too many wrong keys from this address", retry)
        caller = self._known(token) or self._granted(token)
        if caller is None:
            self._window.hit(FAILURES, "failures", address)
            raise unauthorized("the key or token is not valid")
        if caller.role == "metrics" and path != METRICS:
            raise Problem(403, "forbidden", f"a key of METRICS_KEYS reads {METRICS} and nothing else")
        return caller

    def spend(self, who: str) -> dict[str, str]:
        """One request of a caller's or an address's. Returns headers that say what is left. Raises Problem 429."""
        if self._rate is None:
            return {}
        allowed = self._window.hit(self._rate, who)
        reset, remaining = self._window.get_window_stats(self._rate, who)
        left = {
            LIMIT: str(self._rate.amount),
            REMAINING: str(remaining),
            RESET: str(_seconds_to(reset)),  # s until another is free
        }
        if not allowed:
            retry = {"Retry-After": str(_seconds_to(reset))}
            raise Problem(429, "rate_limited", f"more than {self._settings.rate_limit}", left | retry)
        return left

    def _known(self, token: str) -> Caller | None:
        """Compares with every key, so that the time tells neither which nor how much of it was right."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        found = None
        for known, caller in self._keys:
            if hmac.compare_digest(digest, known):
                found = caller
        return found

    def _granted(self, token: str) -> Caller | None:
        """What a JWT says. The algorithm is the configured one, whatever the token's header asks for.

        Raises Problem for a token that is ours and grants nothing (now, or at all): nobody guesses those.
        """
        settings = self._settings
        if settings.jwt_key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                settings.jwt_key,
                algorithms=[settings.jwt_algorithm],
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise unauthorized("the token has expired") from None
        except (jwt.InvalidTokenError, UnicodeError):  # the latter: half of a character, in a WebSocket's message
            return None
        role = role_of(claims)
        if role is None:
            raise Problem(403, "forbidden", "the token grants neither predict nor admin (claim roles, or scope)")
        subject = re.sub(r"[^\w.@:-]", "?", str(claims.get("sub", "nobody")), flags=re.ASCII)[:64]
        return Caller(f"token of {subject}", role)


def role_of(claims: Mapping[str, Any]) -> Role | None:
    """From `roles` (a list) or `scope` (words), the two usual places (RFC 9068, 2.2.3)."""
    roles, scope = claims.get("roles"), claims.get("scope")
    named = [*(roles if isinstance(roles, list) else []), *(scope.split() if isinstance(scope, str) else [])]
    return "admin" if "admin" in named else "predict" if "predict" in named else None


def token_of(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key", "").strip() or (token.strip() if scheme.lower() == "bearer" else None) or None


def address_of(scope: Scope) -> str:
    """Whose requests count together: an IPv4 address, or the /64 of an IPv6 one, all of which one customer has."""
    host = str(scope["client"][0]) if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def is_own_page(headers: Headers, allowed: tuple[str, ...]) -> bool:
    """False for a browser's page of another origin, unless allowed. Other clients send no Origin."""
    origin = headers.get("origin")
    return origin is None or origin in allowed or origin.partition("://")[2] == headers.get("host")


def is_at_the_machine(scope: Scope, headers: Headers, origins: tuple[str, ...]) -> bool:
    """Somebody at this very machine, not a page that their browser shows, and not who comes through a proxy on it.

    The Host is compared because a page may let its own name point at 127.0.0.1 (DNS rebinding).
    """
    return (
        address_of(scope) == "127.0.0.1"
        and headers.get("host", "").partition(":")[0] in ("127.0.0.1", "localhost")
        and is_own_page(headers, origins)
        and not any(name in headers for name in FORWARDED)
    )


def is_open(path: str) -> bool:
    return path in PROBES or path == "/" or path.startswith(FILES)


def route_path(scope: Scope) -> str:
    """The path as the app's routes see it, without the prefix that a proxy took off."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix)


def stamped(send: Send, headers: Callable[[], Mapping[str, str]]) -> Send:
    """send, which adds headers to an answer's opening; those that the answer has already stay."""

    async def stamp(message: Message) -> None:
        if message["type"] in OPENINGS:
            message.setdefault("headers", [])
            present = MutableHeaders(scope=message)
            for name, value in headers().items():
                present.setdefault(name, value)
        await send(message)

    return stamp


def unauthorized(message: str) -> Problem:
    return Problem(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="finger-counter"'})


def _keys_of(settings: Settings) -> tuple[tuple[str, Role, tuple[SecretStr, ...]], ...]:
    return (
        ("API_KEYS", "predict", settings.api_keys),
        ("ADMIN_KEYS", "admin", settings.admin_keys),
        ("METRICS_KEYS", "metrics", settings.metrics_keys),
    )


def _seconds_to(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))
