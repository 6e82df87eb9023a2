"""The environment: right, or one line that names the variable, its value unless it is a secret, and what is allowed."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from serve.settings import Settings, read_settings, usable_cores
from stages.params import StageError
from tests.native import ROOT

KEY, OTHER_KEY, SECRET = "k" * 16, "o" * 16, "s" * 32
TOKENS = {"JWT_SECRET": SECRET, "JWT_AUDIENCE": "fingers"}


def test_nothing_set_is_a_server_for_this_machine_alone_that_hides_faces() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"
    assert settings.is_keyless
    assert settings.enable_preprocessing
    assert settings.rate_limit == "600/minute"
    assert settings.max_body == 20_000_000


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.model_fields])
def test_an_empty_variable_is_an_unset_one(variable: str) -> None:
    assert read_settings({variable: ""}) == Settings()


@pytest.mark.parametrize(
    ("environment", "name", "value"),
    [
        ({"PORT": "9001"}, "port", 9001),
        ({"HOST": "0.0.0.0", "API_KEYS": KEY}, "host", "0.0.0.0"),  # noqa: S104
        ({"HOST": "::", **TOKENS}, "host", "::"),
        ({"CORS_ORIGINS": "https://a.example, http://b:81"}, "cors_origins", ("https://a.example", "http://b:81")),
        ({"TRUSTED_PROXIES": "10.0.0.5,fd00::/8"}, "trusted_proxies", ("10.0.0.5", "fd00::/8")),
        ({"RATE_LIMIT": "off"}, "rate_limit", "off"),
        ({"RATE_LIMIT": "20/second"}, "rate_limit", "20/second"),
        ({"MAX_BODY_MB": "5"}, "max_body", 5_000_000),
        ({"SERVE_WORKERS": "3"}, "serve_workers", 3),
        ({"ENABLE_PREPROCESSING": "false", "ALLOW_UNBLURRED": "true"}, "enable_preprocessing", False),
        ({"ALLOW_UNBLURRED": "true"}, "enable_preprocessing", True),
        ({"ROOT_PATH": "/fingers/v1"}, "root_path", "/fingers/v1"),
        (TOKENS, "jwt_key", SECRET),
        (TOKENS, "is_keyless", False),
        ({"ADMIN_KEYS": KEY}, "is_keyless", False),
    ],
)
def test_a_variable_becomes_the_setting_of_its_name(environment: dict[str, str], name: str, value: object) -> None:
    assert getattr(read_settings(environment), name) == value


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "80"}, "PORT: '80' is not allowed: input should be greater than or equal to 1024"),
        ({"PORT": "http"}, "PORT: 'http' is not allowed: input should be a valid integer"),
        ({"HOST": "localhost"}, "HOST: 'localhost' is not allowed: input should be '127.0.0.1', '0.0.0.0' or '::'"),
        ({"HOST": "0.0.0.0"}, "HOST: 0.0.0.0 is reached by others, and nothing says who may come in"),  # noqa: S104
        ({"HOST": "::"}, "HOST: :: is reached by others, and nothing says who may come in; set API_KEYS"),
        ({"ENABLE_PREPROCESSING": "false"}, "ENABLE_PREPROCESSING: false leaves faces as they are; if that is meant"),
        ({"ENABLE_PREPROCESSING": "no way"}, "ENABLE_PREPROCESSING: 'no way' is not allowed"),
        ({"SERVE_DEVICE": "gpu"}, "SERVE_DEVICE: 'gpu' is not allowed: input should be 'auto', 'cpu'"),
        ({"SERVE_WORKERS": "0"}, "SERVE_WORKERS: '0' is not allowed: input should be greater than or equal to 1"),
        ({"BATCH_TIMEOUT": "0"}, "BATCH_TIMEOUT: '0' is not allowed: input should be greater than 0"),
        ({"REQUEST_TIMEOUT": "nan"}, "REQUEST_TIMEOUT: 'nan' is not allowed: input should be a finite number"),
        ({"MAX_BODY_MB": "2.5"}, "MAX_BODY_MB: '2.5' is not allowed: input should be a valid integer"),
        ({"ROOT_PATH": "fingers/"}, "ROOT_PATH: 'fingers/' is not allowed"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS: '*' is no origin; write scheme and host"),
        ({"CORS_ORIGINS": "https://a.example/"}, "CORS_ORIGINS: 'https://a.example/' is no origin"),
        ({"CORS_ORIGINS": "null"}, "CORS_ORIGINS: 'null' is no origin"),
        ({"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES: '*' does not appear to be an IPv4 or IPv6 network"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES: 10.0.0.1/8 has host bits set"),
        ({"RATE_LIMIT": "0/minute"}, "RATE_LIMIT: '0/minute' is no rate; write 600/minute, 20/second or off"),
        ({"RATE_LIMIT": "often"}, "RATE_LIMIT: 'often' is no rate"),
        ({"API_KEYS": "short"}, "API_KEYS: key 1 has 5 characters; at least 16"),
        ({"ADMIN_KEYS": f"{KEY},,{OTHER_KEY},x"}, "ADMIN_KEYS: key 3 has 1 characters"),
        ({"API_KEYS": "é" * 16}, "API_KEYS: key 1 has characters that no header carries"),
        ({"API_KEYS": KEY, "ADMIN_KEYS": KEY}, "API_KEYS, ADMIN_KEYS, METRICS_KEYS: one key stands there twice"),
        ({"ADMIN_KEYS": KEY, "METRICS_KEYS": KEY}, "API_KEYS, ADMIN_KEYS, METRICS_KEYS: one key stands there twice"),
        ({"HOST": "::", "METRICS_KEYS": KEY}, "HOST: :: is reached by others, and nothing says who may come in"),
        ({**TOKENS, "JWT_SECRET": "s" * 31}, "JWT_SECRET: 31 bytes; at least 32"),
        ({"JWT_SECRET": SECRET}, "JWT_AUDIENCE: unset; tokens made for another service would be let in"),
        ({"JWT_AUDIENCE": "fingers"}, "JWT_SECRET: unset, and JWT_AUDIENCE or JWT_ISSUER is set"),
        ({**TOKENS, "JWT_ALGORITHM": "RS256"}, "JWT_ALGORITHM: RS256 takes JWT_PUBLIC_KEY_FILE, and the other's key"),
        ({**TOKENS, "JWT_ALGORITHM": "none"}, "JWT_ALGORITHM: 'none' is not allowed: input should be 'HS256' or"),
        ({"JWT_PUBLIC_KEY_FILE": "/no/such.pem"}, "JWT_PUBLIC_KEY_FILE: /no/such.pem cannot be read: No such file"),
        ({"API_KEYS": KEY, "API_KEYS_FILE": "/no/such"}, "API_KEYS: set, and API_KEYS_FILE too; keep one of them"),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_allowed(environment: dict[str, str], message: str) -> None:
    with pytest.raises(StageError) as refused:
        read_settings(environment)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(StageError, match=r"^PORT: .* \(and 1 more\)$"):
        read_settings({"PORT": "80", "LOG_FORMAT": "xml"})


def test_keys_come_from_a_file_too_one_a_line_or_with_commas(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{OTHER_KEY}, {'x' * 16}\n")
    keys = read_settings({"API_KEYS_FILE": str(file)}).api_keys
    assert [key.get_secret_value() for key in keys] == [KEY, OTHER_KEY, "x" * 16]


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "not UTF-8")])
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(StageError, match=f"^JWT_SECRET_FILE: .*{reason}"):
        read_settings({"JWT_SECRET_FILE": str(file), "JWT_AUDIENCE": "fingers"})


def test_a_folder_in_place_of_a_secret_s_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"API_KEYS_FILE: .* cannot be read: Is a directory"):
        read_settings({"API_KEYS_FILE": str(tmp_path)})


def test_an_rsa_public_key_is_taken_and_nothing_else(tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    for pem, refusal in (
        (public, None),
        (secret, "is no public key in PEM form"),
        (b"ssh-rsa AAAA", "is no public key in PEM form"),
        (curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "is no RSA key of at least 2048 bits"),
    ):
        (tmp_path / "key.pem").write_bytes(pem)
        environment = {
            "JWT_ALGORITHM": "RS256",
            "JWT_PUBLIC_KEY_FILE": str(tmp_path / "key.pem"),
            "JWT_AUDIENCE": "fingers",
        }
        if refusal is None:
            assert read_settings(environment).jwt_key == public.decode().strip()
        else:
            with pytest.raises(StageError, match=f"^JWT_PUBLIC_KEY: {refusal}"):
                read_settings(environment)


def test_a_pem_is_no_hmac_secret() -> None:
    with pytest.raises(StageError, match=r"^JWT_SECRET: is a PEM key"):
        read_settings({**TOKENS, "JWT_SECRET": "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkq"})


def test_no_secret_is_shown_by_settings_or_by_a_refusal() -> None:
    secrets = {"API_KEYS": "a-users-own-key-1", "ADMIN_KEYS": "an-admins-own-key", **TOKENS}
    uri = {"MLFLOW_TRACKING_URI": "https://me:hunter2@mlflow.example"}
    shown = [repr(read_settings(secrets | uri)), str(read_settings(secrets | uri)), read_settings(secrets).model_dump()]
    for wrong in ({"PORT": "1"}, {"ADMIN_KEYS": "a-users-own-key-1"}, {"API_KEYS": "a-users-own-key"}):
        with pytest.raises(StageError) as refused:
            read_settings(secrets | wrong)
        shown.append(str(refused.value))
    hidden = ["a-users-own", "an-admins-own", SECRET, "hunter2"]
    assert not [(secret, text) for secret in hidden for text in map(str, shown) if secret in text]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_a_container_s_limit_counts_and_not_the_machine_s_cores(tmp_path: Path) -> None:
    file, machine = tmp_path / "cpu.max", usable_cores(tmp_path / "absent")
    for limit, cores in (("50000 100000", 1), ("150000 100000", 1), ("max 100000", machine), ("", machine)):
        file.write_text(limit)
        assert usable_cores(file) == cores


def test_every_setting_has_its_line_in_the_example_of_dotenv() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    documented = {line.lstrip("#").partition("=")[0] for line in lines if "=" in line}
    names = {name.upper() for name in Settings.model_fields}
    assert names - documented <= {"JWT_PUBLIC_KEY"}  # as JWT_PUBLIC_KEY_FILE: a PEM has several lines
    assert "JWT_PUBLIC_KEY_FILE" in documented
