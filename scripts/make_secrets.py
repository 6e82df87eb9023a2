"""Nothing -> the secrets that deploy/compose.yaml mounts, a random one each; what is there already stays as it is.

    python3 scripts/make_secrets.py          # needs nothing but Python: a server has no .venv

Compose mounts such a file with the owner and the mode that it has here, and no container runs as its owner. So each may
be read by all, in a folder that only its owner may enter.
"""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "deploy/secrets"
RANDOM = {  # bytes, as two hexadecimal digits each
    "admin_keys": 24,
    "api_keys": 24,
    "grafana_admin_password": 24,
    "metrics_key": 24,
    "postgres_password": 24,
    "s3_access_key": 10,  # S3's own keys are of 20 and 40 characters
    "s3_secret_key": 20,
}
YOURS = ("jwt_key", "picsellia_token")  # which nobody can make up; empty as long as they are not used


def main(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = [name for name, size in RANDOM.items() if write_new(folder / name, secrets.token_hex(size))]
    made += [name for name in YOURS if write_new(folder / name, "")]
    random = {name: (folder / name).read_text(encoding="utf-8").strip() for name in RANDOM}
    made += [name for name, text in composed(random).items() if write_new(folder / name, text)]
    sys.stderr.write(f"{folder}: made {', '.join(sorted(made)) or 'nothing: all are there'}\n")


def composed(random: Mapping[str, str]) -> dict[str, str]:
    """For SeaweedFS, which takes no single value from a file: its S3 key, and what its parts know each other by."""
    identity = {
        "name": "fingers",
        "credentials": [{"accessKey": random["s3_access_key"], "secretKey": random["s3_secret_key"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    tokens = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    return {
        "seaweedfs_identities.json": json.dumps({"identities": [identity]}, indent=1) + "\n",
        "seaweedfs_security.toml": "".join(f'[{name}]\nkey = "{secrets.token_hex(24)}"\n' for name in tokens),
    }


def write_new(path: Path, text: str) -> bool:
    """Whole, and False where there is one: a secret that is in use is nobody's to replace."""
    if path.exists():
        return False
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.chmod(0o444)
    partial.replace(path)
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
