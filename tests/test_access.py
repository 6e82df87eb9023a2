"""Who gets in, as whom and how often; and what those hear who do not."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import limits
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from serve.access import Access, address_of, role_of
from serve.problems import Problem
from serve.settings import read_settings
from tests.layered import ADMIN, KEYS, SECOND, USER, ask, code_of, site

SECRET, SCRAPE = "s" * 32, "scrape-key-012345"
TOKENS = {"JWT_SECRET": SECRET, "JWT_AUDIENCE": "fingers"}
RSA_KEY = rsa.generate_private_key(65537, 2048)
PRIVATE_PEM = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("path", ["/health"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}])
def test_probes_need_no_key(path: str, headers: dict[str, str]) -> None:
    assert ask(site(read_settings(KEYS)), path, headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/dashboard/app.js"])
def test_the_page_that_asks_for_a_key_needs_none(path: str) -> None:
    assert ask(site(read_settings(KEYS)), path).status_code == 404  # there is none in this app; nobody is refused


@pytest.mark.parametrize(
    "path",
    [
        *("/docs", "/openapi.json", "/metrics", "/predict", "/models", "/nobody/wrote/it", "/health/", "/%2Fhealth"),
        *("/dashboard", "/dashboards/app.js", "/%2F"),
    ],
)
def test_any_other_path_needs_one_known_or_not(path: str) -> None:
    answer = ask(site(read_settings(KEYS)), path)
    assert code_of(answer) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        ({"X-API-Key": USER}, "API_KEYS 1"),
        ({"X-API-Key": SECOND}, "API_KEYS 2"),
        ({"Authorization": f"Bearer {USER}"}, "API_KEYS 1"),
        ({"Authorization": f"bearer  {USER}"}, "API_KEYS 1"),
        ({"X-API-Key": ADMIN}, "ADMIN_KEYS 1"),
        ({"X-API-Key": USER, "Authorization": "Basic eDp5"}, "API_KEYS 1"),
        ({}, None),
        ({"X-API-Key": ""}, None),
        ({"X-API-Key": USER[:-1]}, None),
        ({"X-API-Key": f"{USER}x"}, None),
        ({"X-API-Key": USER.upper()}, None),
        ({"X-API-Key": f"{USER},{SECOND}"}, None),
        ({"Authorization": USER}, None),
        ({"Authorization": f"Basic {base64.b64encode(USER.encode()).decode()}"}, None),
        ({"Authorization": "Bearer"}, None),
        ({"Cookie": f"X-API-Key={USER}"}, None),
    ],
)
def test_a_key_in_either_header_says_who_it_is(headers: dict[str, str], caller: str | None) -> None:
    answer = ask(site(read_settings(KEYS)), "/predict", headers, method="POST")
    if caller is None:
        assert code_of(answer) == (401, "unauthorized")
    else:
        assert answer.json()["caller"] == caller


def test_a_key_in_the_query_opens_nothing() -> None:
    assert ask(site(read_settings(KEYS)), f"/predict?key={USER}&x-api-key={USER}", method="POST").status_code == 401


def test_bytes_that_are_no_text_are_a_wrong_key() -> None:
    with pytest.raises(Problem, match="not valid"):
        Access(read_settings(KEYS)).admit("\xff\x00é", "1.2.3.4")


@pytest.mark.parametrize(("key", "status"), [(USER, 403), (ADMIN, 200)])
@pytest.mark.parametrize("path", ["/models/load", "/models/load?x=1", "/models%2Fload", "/%6dodels/load"])
def test_loading_a_model_is_for_admins(path: str, key: str, status: int) -> None:
    assert ask(site(read_settings(KEYS)), path, {"X-API-Key": key}, method="POST").status_code == status


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/metrics", "GET", 404),  # there is none in this app; nobody is refused
        ("/predict", "POST", 403),
        ("/models/load", "POST", 403),
        ("/metrics/", "GET", 403),
        ("/docs", "GET", 403),
    ],
)
def test_what_prometheus_holds_reads_metrics_and_nothing_else(path: str, method: str, status: int) -> None:
    settings = read_settings({**KEYS, "METRICS_KEYS": SCRAPE})
    assert ask(site(settings), path, {"Authorization": f"Bearer {SCRAPE}"}, method=method).status_code == status


def test_a_key_for_metrics_opens_no_websocket_by_its_first_message() -> None:
    access = Access(read_settings({**KEYS, "METRICS_KEYS": SCRAPE}))
    with pytest.raises(Problem, match="reads /metrics and nothing else"):
        access.admit(SCRAPE, "1.2.3.4")


@pytest.mark.parametrize("path", ["/models/load%0A", "/models/load%0a", "/models/load%00"])
def test_a_line_feed_after_the_path_is_no_way_around(path: str) -> None:
    answer = ask(site(read_settings(KEYS)), path, {"X-API-Key": USER}, method="POST")
    assert code_of(answer) == (404, "not_found")


def test_a_prefix_that_a_proxy_takes_off_is_no_way_around() -> None:
    app = site(read_settings(KEYS))
    app.root_path = "/fingers"
    for path in ("/models/load", "/fingers/models/load"):
        assert ask(app, path, {"X-API-Key": USER}, method="POST").status_code == 403
    assert ask(app, "/fingers/health").status_code == 200


@pytest.mark.parametrize("key", [USER, SECOND, ADMIN, "wrong"])
def test_every_key_is_compared_whichever_is_right(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return real(a, b)

    access = Access(read_settings(KEYS))
    monkeypatch.setattr("serve.access.hmac.compare_digest", noted)
    try:
        access.admit(key, "1.2.3.4")
    except Problem:
        assert key == "wrong"
    assert compared == [hashlib.sha256(known.encode()).digest() for known in (USER, SECOND, ADMIN)]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"headers": {"Origin": "http://127.0.0.1:8000"}}, 200),
        ({"client": "192.168.1.5"}, 403),
        ({"client": "testclient"}, 403),
        ({"host": "evil.example"}, 403),
        ({"headers": {"Origin": "https://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"headers": {"X-Forwarded-For": "127.0.0.1"}}, 403),
        ({"headers": {"Forwarded": "for=127.0.0.1"}}, 403),
    ],
)
def test_without_keys_only_somebody_at_the_machine_is_admin(change: dict[str, Any], status: int) -> None:
    app = site(read_settings({}))
    assert ask(app, "/models/load", method="POST", **change).status_code == status
    assert ask(app, "/predict", method="POST", **change).status_code == 200


def token(key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A good one but for what claims change; None takes a claim out."""
    whole = {name: value for name, value in {**good_claims(), **claims}.items() if value is not None}
    return jwt.encode(whole, key, algorithm)


def good_claims() -> dict[str, Any]:
    issuer = "https://id.example"
    return {"aud": "fingers", "exp": time.time() + 60, "iss": issuer, "sub": "anna", "roles": ["predict"]}


def forged(header: Mapping[str, object], digest: str | None = "sha256", key: str = SECRET, **claims: Any) -> str:
    """What PyJWT refuses to make. digest None: no signature."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, good_claims() | claims)
    ]
    signature = hmac.digest(key.encode(), b".".join(parts), digest) if digest else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({}, None),
        ({"roles": []}, None),
        ({"roles": ["predict"]}, "predict"),
        ({"roles": ["predict", "admin"]}, "admin"),
        ({"roles": ["administrator"]}, None),
        ({"roles": "admin"}, None),
        ({"roles": {"admin": 1}}, None),
        ({"scope": "openid predict"}, "predict"),
        ({"scope": "openid admin"}, "admin"),
        ({"scope": ["admin"]}, None),
        ({"scope": "predict", "roles": ["admin"]}, "admin"),
    ],
)
def test_roles_are_read_from_the_two_usual_claims(claims: dict[str, object], role: str | None) -> None:
    assert role_of(claims) == role


PRESENTED: dict[str, tuple[Callable[[], str], int, str]] = {
    "good": (token, 200, "token of anna"),
    "just expired, as clocks differ": (lambda: token(exp=time.time() - 5), 200, "token of anna"),
    "for several services": (lambda: token(aud=["other", "fingers"]), 200, "token of anna"),
    "scope in place of roles": (lambda: token(roles=None, scope="predict"), 200, "token of anna"),
    "without a subject": (lambda: token(sub=None), 200, "token of nobody"),
    "a subject that would write a line of log": (lambda: token(sub="a\nb: c"), 200, "token of a?b:?c"),
    "roles of another service": (lambda: token(roles=["editor"]), 403, "neither predict nor admin"),
    "expired": (lambda: token(exp=time.time() - 60), 401, "expired"),
    "without expiry": (lambda: token(exp=None), 401, "not valid"),
    "expiry no number": (lambda: forged({"alg": "HS256"}, exp="soon"), 401, "not valid"),
    "expiry without end": (lambda: forged({"alg": "HS256"}, exp=float("inf")), 401, "not valid"),
    "without audience": (lambda: token(aud=None), 401, "not valid"),
    "another audience": (lambda: token(aud="another"), 401, "not valid"),
    "without issuer": (lambda: token(iss=None), 401, "not valid"),
    "another issuer": (lambda: token(iss="https://evil.example"), 401, "not valid"),
    "not yet": (lambda: token(nbf=time.time() + 60), 401, "not valid"),
    "another secret": (lambda: token(key="x" * 32), 401, "not valid"),
    "cut off": (lambda: token()[:-4], 401, "not valid"),
    "alg none": (lambda: forged({"alg": "none"}, None), 401, "not valid"),
    "alg NONE": (lambda: forged({"alg": "NONE", "typ": "JWT"}, None), 401, "not valid"),
    "no alg": (lambda: forged({}), 401, "not valid"),
    "our secret, another algorithm": (lambda: forged({"alg": "HS512"}, "sha512"), 401, "not valid"),
    "critical extension": (lambda: forged({"alg": "HS256", "crit": ["x"], "x": 1}), 401, "not valid"),
    "dots": (lambda: "..", 401, "not valid"),
    "letters": (lambda: "a.b.c", 401, "not valid"),
    "nested without end": (lambda: base64.urlsafe_b64encode(b"[" * 20_000).decode() + ".e30.x", 401, "not valid"),
}


@pytest.mark.parametrize("name", PRESENTED)
def test_a_token_is_good_or_hears_no_more_than_that_it_is_not(name: str) -> None:
    presented, status, said = PRESENTED[name]
    app = site(read_settings({**TOKENS, "JWT_ISSUER": "https://id.example"}))
    answer = ask(app, "/predict", {"Authorization": f"Bearer {presented()}"}, method="POST")
    assert (answer.status_code, said in answer.text) == (status, True), answer.text


def test_with_rs256_the_public_key_signs_nothing(tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_text(PUBLIC_PEM)
    settings = read_settings(
        {"JWT_ALGORITHM": "RS256", "JWT_PUBLIC_KEY_FILE": str(tmp_path / "public.pem"), "JWT_AUDIENCE": "fingers"}
    )
    access = Access(settings)
    assert access.admit(token(PRIVATE_PEM, "RS256", roles=["admin"]), "1.2.3.4").role == "admin"
    for key in (PUBLIC_PEM, PUBLIC_PEM.strip(), PUBLIC_PEM.replace("\n", "")):
        with pytest.raises(Problem, match="not valid"):
            access.admit(forged({"alg": "HS256"}, key=key), "1.2.3.4")
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(Problem, match="not valid"):
        access.admit(token(other.decode(), "RS256"), "1.2.3.4")


def test_a_token_is_no_key_where_only_keys_are_set_and_both_work_where_both_are() -> None:
    with pytest.raises(Problem, match="not valid"):
        Access(read_settings(KEYS)).admit(token(), "1.2.3.4")
    both = Access(read_settings(KEYS | TOKENS))
    assert [both.admit(known, "1.2.3.4").name for known in (USER, token())] == ["API_KEYS 1", "token of anna"]


@pytest.mark.parametrize("broken", ["\ud800", "\ud800.\ud800.\ud800", "\0", ""])
def test_a_first_message_that_is_no_text_is_a_wrong_key(broken: str) -> None:
    with pytest.raises(Problem, match="not valid"):
        Access(read_settings(KEYS | TOKENS)).admit(broken, "1.2.3.4")


def test_the_next_one_over_the_rate_hears_when_to_come_again() -> None:
    app = site(read_settings(KEYS | {"RATE_LIMIT": "3/hour"}))
    answers = [ask(app, "/predict", {"X-API-Key": USER}, method="POST") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert code_of(answers[3]) == (429, "rate_limited")
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 3600
    assert int(answers[0].headers["X-RateLimit-Reset"]) >= 1
    assert ask(app, "/health").status_code == 200  # a probe must not find the server dead because it is busy


def test_a_key_s_rate_counts_from_wherever_it_is_used_and_an_address_s_for_whatever_key() -> None:
    def statuses(*requests: tuple[str, str]) -> list[int]:
        app = site(read_settings(KEYS | {"RATE_LIMIT": "2/hour"}))
        return [ask(app, "/predict", {"X-API-Key": k}, method="POST", client=c).status_code for k, c in requests]

    assert statuses((USER, "10.0.0.1"), (USER, "10.0.0.2"), (USER, "10.0.0.3")) == [200, 200, 429]
    assert statuses((USER, "10.0.0.1"), (SECOND, "10.0.0.1"), (ADMIN, "10.0.0.1")) == [200, 200, 429]
    assert statuses((USER, "10.0.0.1"), (SECOND, "10.0.0.2"), (USER, "10.0.0.2")) == [200, 200, 200]


def test_who_has_no_key_is_counted_too() -> None:
    app = site(read_settings(KEYS | {"RATE_LIMIT": "2/hour"}))
    assert [ask(app, "/docs").status_code for _ in range(3)] == [401, 401, 429]


def test_guessing_ends_after_some_tries_even_without_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.access.FAILURES", limits.parse("3/hour"))
    app = site(read_settings(KEYS | {"RATE_LIMIT": "off"}))
    tried = [ask(app, "/docs", {"X-API-Key": f"guess-{n}"}) for n in range(4)]
    assert [answer.status_code for answer in tried] == [401, 401, 401, 429]
    assert int(tried[3].headers["Retry-After"]) >= 1
    assert ask(app, "/predict", {"X-API-Key": USER}, method="POST").status_code == 429  # else the right guess tells
    assert ask(app, "/predict", {"X-API-Key": USER}, method="POST", client="10.0.0.9").status_code == 200


@pytest.mark.parametrize("headers", [{"X-API-Key": USER}, {}])
def test_right_keys_and_none_at_all_are_no_guesses(headers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.access.FAILURES", limits.parse("2/hour"))
    app = site(read_settings(KEYS))
    assert 429 not in [ask(app, "/predict", headers, method="POST").status_code for _ in range(4)]


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (None, ""),
        (("1.2.3.4", 5), "1.2.3.4"),
        (("::ffff:1.2.3.4", 5), "1.2.3.4"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 5), "2001:db8:1:2::/64"),
        (("/run/socket", 0), "/run/socket"),
    ],
)
def test_addresses_that_one_customer_has_count_together(client: tuple[str, int] | None, address: str) -> None:
    assert address_of({"type": "http", "client": client}) == address


@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted_apart"),
    [
        ("", ["1.1.1.1", "2.2.2.2"], False),
        ("10.9.9.9", ["1.1.1.1", "2.2.2.2"], False),  # another than who asks
        ("10.0.0.0/8", ["1.1.1.1", "2.2.2.2"], True),
        (
            "10.0.0.0/8",
            ["6.6.6.6, 1.1.1.1", "7.7.7.7, 1.1.1.1"],
            False,
        ),  # the client wrote the first, the proxy the last
    ],
)
def test_a_forwarded_address_counts_if_a_trusted_proxy_wrote_it(
    trusted: str, forwarded: list[str], counted_apart: bool
) -> None:
    app = site(read_settings(KEYS | {"RATE_LIMIT": "1/hour", "TRUSTED_PROXIES": trusted}))
    headers = [{"X-API-Key": key, "X-Forwarded-For": f} for key, f in zip((USER, SECOND), forwarded, strict=True)]
    statuses = [ask(app, "/predict", h, method="POST", client="10.0.0.1").status_code for h in headers]
    assert statuses == [200, 200 if counted_apart else 429]
