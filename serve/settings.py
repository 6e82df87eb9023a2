"""The environment -> Settings: everything that can be set about the server, checked whole before it starts."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import limits
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic import model_validator as check
from pydantic_core import ErrorDetails

from stages.params import StageError
from stages.vision.images import MAX_PIXELS

SECRETS = ("api_keys", "admin_keys", "metrics_keys", "jwt_secret", "jwt_public_key")
SHORTEST_KEY = 16  # characters
SHORTEST_SECRET = 32  # bytes, the output of SHA-256 (RFC 7518, 3.2)
SHORTEST_RSA = 2048  # bits (RFC 7518, 3.3)
MOST_WORKERS = 8  # each holds the model; more cores give each more threads
CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000" is two cores


def read_settings(environment: Mapping[str, str] = os.environ) -> "Settings":
    """Of each NAME, or of the file that NAME_FILE names where it is a secret; what is empty counts as unset.

    Raises StageError, naming the variable, its value (unless it is a secret) and what is allowed.
    """
    given = {name: value for name in Settings.model_fields if (value := environment.get(name.upper()))}
    for name in SECRETS:
        if path := environment.get(f"{name.upper()}_FILE"):
            if name in given:
                raise StageError(f"{name.upper()}: set, and {name.upper()}_FILE too; keep one of them")
            given[name] = _content(f"{name.upper()}_FILE", Path(path))
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise StageError(f"{_one_line(first)}{more}") from None


def _content(name: str, path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StageError(f"{name}: {path} cannot be read: {reason}") from None
    if not content:
        raise StageError(f"{name}: {path} is empty; put the secret in it, or leave {name} unset")
    return content


def _one_line(error: ErrorDetails) -> str:
    """A rule over several variables names them itself. No secret is shown: what they must be, our own rules say."""
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return said
    name = str(error["loc"][0])
    if error["type"] == "value_error":
        return f"{name.upper()}: {said}"
    return f"{name.upper()}: {error['input']!r} is not allowed: {said[0].lower()}{said[1:]}"


def usable_cores(limit: Path = CGROUP_CPU) -> int:
    """What this process may use: a container with two cores on a machine of 64 has two."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # not Linux, no cgroup, or "max": no limit
        return allowed


def _split(value: object) -> object:
    """Commas, and lines in a file."""
    return tuple(re.split(r"[,\s]+", value.strip(", \t\r\n"))) if isinstance(value, str) else value


def _are_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for number, key in enumerate(keys, 1):
        length = len(key.get_secret_value())
        if length < SHORTEST_KEY:
            raise ValueError(f"key {number} has {length} characters; at least {SHORTEST_KEY}: openssl rand -hex 24")
        if not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError(f"key {number} has characters that no header carries; ASCII without spaces is allowed")
    return keys


def _are_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not re.fullmatch(r"https?://[a-z0-9.\-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?", origin):
            raise ValueError(
                f"{origin!r} is no origin; write scheme and host as a browser does: https://app.example.org"
            )
    return origins


def _are_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"{error}; write addresses or networks: 10.0.0.5,172.16.0.0/12") from None
    return networks


def _is_rate(rate: str) -> str:
    try:
        if rate == "off" or limits.parse(rate).amount > 0:
            return rate
    except ValueError:
        pass
    raise ValueError(f"{rate!r} is no rate; write 600/minute, 20/second or off")


def _is_hmac_secret(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if len(value.encode()) < SHORTEST_SECRET:
        raise ValueError(f"{len(value.encode())} bytes; at least {SHORTEST_SECRET}: openssl rand -hex 32")
    if "-----BEGIN" in value:
        raise ValueError("is a PEM key, which others may know; give random bytes, or use JWT_ALGORITHM=RS256")
    return secret


def _is_public_key(pem: SecretStr) -> SecretStr:
    try:
        key = load_pem_public_key(pem.get_secret_value().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no public key in PEM form: openssl rsa -in private.pem -pubout") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < SHORTEST_RSA:
        raise ValueError(f"is no RSA key of at least {SHORTEST_RSA} bits")
    return pem


Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(_split), AfterValidator(_are_keys)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_are_origins)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_are_networks)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen. A field is the environment variable of its name in capitals; .env.example says what each is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Literal["127.0.0.1", "0.0.0.0", "::"] = "127.0.0.1"  # noqa: S104 -- LitServe takes no other
    port: Annotated[int, Field(ge=1024, le=65535)] = 8000  # LitServe's range
    root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.~-]+)*$")] = ""  # what a proxy takes off the path
    cors_origins: Origins = ()
    trusted_proxies: Networks = ()  # whose X-Forwarded-For counts
    log_format: Literal["auto", "text", "json"] = "auto"  # auto: text on a terminal

    serve_workers: Positive = Field(default_factory=lambda: min(MOST_WORKERS, usable_cores()))
    # Two threads also where workers = cores: one decodes while the other's network runs.
    serve_threads: Positive = Field(default_factory=lambda: min(usable_cores(), max(2, usable_cores() // MOST_WORKERS)))
    serve_device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    max_batch_size: Positive = 1  # pictures that LitServe puts together
    batch_timeout: Seconds = 0.005  # s; at 0 LitServe spins idle

    default_model_name: Annotated[str, Field(pattern=r"^[^/:.\s]+$")] = "yolo11-finger-counter"
    default_model_stage: Annotated[str, Field(pattern=r"^\S+$")] = "Production"
    mlflow_tracking_uri: str | None = Field(default=None, repr=False)  # may hold a password
    models_kept: Positive = 3  # versions loaded at once, in each worker

    enable_preprocessing: bool = True
    allow_unblurred: bool = False

    api_keys: Keys = ()  # role predict
    admin_keys: Keys = ()  # role admin
    metrics_keys: Keys = ()  # role metrics: what Prometheus holds opens nothing else
    jwt_algorithm: Literal["HS256", "RS256"] = "HS256"
    jwt_secret: Annotated[SecretStr, AfterValidator(_is_hmac_secret)] | None = None
    jwt_public_key: Annotated[SecretStr, AfterValidator(_is_public_key)] | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None

    rate_limit: Annotated[str, AfterValidator(_is_rate)] = "600/minute"  # per key, and per client address
    max_body_mb: Annotated[int, Field(ge=1, le=1024)] = 20  # nginx counts to the byte, and takes no fraction
    max_pixels: Positive = MAX_PIXELS
    max_batch: Positive = 16  # pictures in one request
    max_queue: Positive = 64  # requests in flight before 503
    request_timeout: Seconds = 10  # s

    @property
    def max_body(self) -> int:
        """Bytes."""
        return self.max_body_mb * 1_000_000

    @property
    def jwt_key(self) -> str | None:
        """What tokens are verified with; None: no token is taken."""
        key = self.jwt_secret if self.jwt_algorithm == "HS256" else self.jwt_public_key
        return key.get_secret_value() if key else None

    @property
    def is_keyless(self) -> bool:
        """Nobody needs to say who they are: on loopback only."""
        return not (self.api_keys or self.admin_keys or self.jwt_key)

    @check(mode="after")
    def _tokens_are_whole(self) -> Self:
        other = self.jwt_public_key if self.jwt_algorithm == "HS256" else self.jwt_secret
        needed = "JWT_SECRET" if self.jwt_algorithm == "HS256" else "JWT_PUBLIC_KEY_FILE"
        if other:
            raise ValueError(
                f"JWT_ALGORITHM: {self.jwt_algorithm} takes {needed}, and the other's key is set; keep one"
            )
        if self.jwt_key and not self.jwt_audience:
            raise ValueError("JWT_AUDIENCE: unset; tokens made for another service would be let in: name this one")
        if not self.jwt_key and (self.jwt_audience or self.jwt_issuer):
            raise ValueError(f"{needed}: unset, and JWT_AUDIENCE or JWT_ISSUER is set; set it, or unset them")
        return self

    @check(mode="after")
    def _a_key_has_one_role(self) -> Self:
        keys = [key.get_secret_value() for key in (*self.api_keys, *self.admin_keys, *self.metrics_keys)]
        if len(set(keys)) < len(keys):
            raise ValueError("API_KEYS, ADMIN_KEYS, METRICS_KEYS: one key stands there twice; give each its own")
        return self

    @check(mode="after")
    def _others_need_a_key(self) -> Self:
        if self.host != "127.0.0.1" and self.is_keyless:
            raise ValueError(
                f"HOST: {self.host} is reached by others, and nothing says who may come in; set API_KEYS, ADMIN_KEYS "
                "or JWT_SECRET (or as a file: API_KEYS_FILE, ...), or HOST=127.0.0.1"
            )
        return self

    @check(mode="after")
    def _faces_are_hidden(self) -> Self:
        if not self.enable_preprocessing and not self.allow_unblurred:
            raise ValueError(
                "ENABLE_PREPROCESSING: false leaves faces as they are; if that is meant, set ALLOW_UNBLURRED=true too"
            )
        return self
