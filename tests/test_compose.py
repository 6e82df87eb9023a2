"""deploy/: valid in every combination, closed where it can be, and one with the settings that programs read."""

import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

from ops.secret_files import NAMES
from serve.settings import SECRETS, Settings
from tests import systems
from tests.composed import DEPLOY, OVERRIDES, PROFILES, Service, compose, composed_in, config, services
from tests.native import ROOT

OURS = ("platform", "serving", "training")
EACH = services() | {
    f"{name}-{override}": service
    for override in OVERRIDES
    for name, service in services(override).items()
    if service != services()[name]
}
each_service = pytest.mark.parametrize("service", EACH.values(), ids=EACH)

# What images of others read, of what is set here: their documentation.
READ_BY_IMAGES = {
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS"},
    "minio": {"MINIO_ROOT_USER_FILE", "MINIO_ROOT_PASSWORD_FILE", "MINIO_UPDATE", "HOME"},
    "nginx": {"NGINX_ENVSUBST_OUTPUT_DIR", "NGINX_ENTRYPOINT_LOCAL_RESOLVERS"},
    "grafana": {
        "GF_SECURITY_ADMIN_PASSWORD__FILE",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_PLUGINS_PREINSTALL_DISABLED",
        "GF_USERS_ALLOW_SIGN_UP",
    },
}
# The program of its health check that each image has.
CHECKED_BY = {
    "postgres": "pg_isready",
    "minio": "mc",
    "seaweedfs": "wget",
    "nginx": "wget",
    "prometheus": "wget",
    "grafana": "wget",
    "platform": "python",
    "serving": "python",
}


@pytest.mark.parametrize("profiles", [(), *((profile,) for profile in PROFILES), PROFILES], ids="-".join)
@pytest.mark.parametrize("overrides", [c for n in range(4) for c in combinations(OVERRIDES, n)], ids="-".join)
def test_every_combination_of_files_and_profiles_is_valid(
    overrides: tuple[str, ...], profiles: tuple[str, ...]
) -> None:
    compose(overrides, ["config", "--quiet"], profiles)


def test_without_a_profile_the_platform_runs_and_what_is_asked_for_waits() -> None:
    running = set(compose((), ["config", "--services"], profiles=()).split())
    assert running == set(services()) - {"training", "restore", "grafana"}


@each_service
def test_no_service_may_do_what_it_needs_not(service: Service) -> None:
    assert service["read_only"]
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"cap_add", "privileged", "pid", "ipc", "devices", "network_mode"} or (
        service["network_mode"] == "none"
    )
    assert service["user"].partition(":")[0] not in ("", "0", "root")
    assert not [mount for mount in service.get("volumes", []) if "docker.sock" in str(mount.get("source"))]


@each_service
def test_no_service_can_take_the_machine_with_it(service: Service) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] in ("unless-stopped", "no")


@each_service
def test_an_image_is_one_version(service: Service) -> None:
    tag = service["image"].rpartition(":")[2]
    assert re.search(r"\d", tag), service["image"]
    assert "/" not in tag, "no tag: latest"


def test_our_images_have_a_name_that_nobody_else_can_give_and_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    ours = {service["image"] for service in EACH.values() if image_of(service) in OURS}
    names = (*OURS, "serving-cuda", "training-cuda")
    assert ours == {f"localhost/finger-counter/{name}:{version}" for name in names}


@pytest.mark.parametrize("overrides", [(), ("seaweedfs",), ("cuda",), ("dev",)])
def test_an_image_is_built_once(overrides: tuple[str, ...]) -> None:
    """Compose builds them all at once: of two with one name the second fails, since it exists already."""
    found = services(*overrides).values()
    built = Counter(service["image"] for service in found if "build" in service)
    assert built == dict.fromkeys({service["image"] for service in found if image_of(service) in OURS}, 1)


def test_whatever_is_started_brings_the_service_along_that_its_image_is_built_for() -> None:
    needed = {name: set(service.get("depends_on", {})) for name, service in services().items()}

    def brought(name: str) -> set[str]:
        return {name}.union(*map(brought, needed[name]))

    alone = {
        name
        for name, service in services().items()
        if image_of(service) in OURS
        and not [
            one for one in brought(name) if services()[one]["image"] == service["image"] and "build" in services()[one]
        ]
    }
    assert alone == {"exporter"}, "which starts at once, to say what is missing"


@pytest.mark.parametrize(("overrides", "volume"), [((), "minio"), (("seaweedfs",), "seaweedfs")])
def test_a_volume_that_an_image_of_others_writes_keeps_the_owner_that_ours_gave_it(
    overrides: tuple[str, ...], volume: str
) -> None:
    mounts = {
        name: mount
        for name, service in services(*overrides).items()
        for mount in service.get("volumes", [])
        if mount["source"] == volume
    }
    assert mounts.keys() == {"volumes", "minio"}
    assert services(*overrides)["minio"]["user"] == services(*overrides)["volumes"]["user"]
    assert mounts["minio"]["volume"] == {"nocopy": True}
    assert not mounts["volumes"].get("volume"), "it is what copies the owner"


def test_each_variant_of_s3_is_started_where_there_is_an_engine() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/images.yml").read_text(encoding="utf-8"))
    started = [files.split(":") for files in workflow["jobs"]["platform"]["strategy"]["matrix"]["files"]]
    assert started == [["compose.yaml"], ["compose.yaml", "compose.seaweedfs.yaml"]]
    assert all((DEPLOY / name).is_file() for files in started for name in files)


def test_training_finds_no_key_of_the_platform_in_the_checkout() -> None:
    training = services()["training"]
    (workspace,) = training["volumes"]
    for file in config()["secrets"].values():
        inside = Path(workspace["target"], Path(file["file"]).relative_to(workspace["source"]))
        assert str(inside.parent) in training["tmpfs"]


@each_service
def test_one_processor_is_enough_where_no_setting_says_how_many(service: Service) -> None:
    """Docker refuses a container that may use more than there are."""
    set_by = {"serving": "SERVING_CPUS", "training": "TRAINING_CPUS"}
    assert service["deploy"]["resources"]["limits"]["cpus"] <= 1 or image_of(service) in set_by


def test_the_memory_that_all_may_take_is_told() -> None:
    always = set(compose((), ["config", "--services"], profiles=()).split()) - {"volumes", "buckets"}
    limits = {name: int(services()[name]["deploy"]["resources"]["limits"]["memory"]) / 2**30 for name in services()}
    told = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    assert f"these come to {sum(limits[name] for name in always):g} GB for all that always runs" in told
    assert f"and to {limits['training']:g} GB more for a training" in told


def test_nginx_has_memory_for_the_pictures_that_it_lets_in_and_time_to_let_them_end() -> None:
    frontend = services()["frontend"]
    pictures, size = (int(frontend["environment"][name]) for name in ("FRONTEND_PICTURES", "MAX_BODY_MB"))
    assert int(frontend["deploy"]["resources"]["limits"]["memory"]) > (pictures * (size + 3) + 100) * 1_000_000
    (patience,) = re.findall(r"worker_shutdown_timeout (\d+)s", (DEPLOY / "nginx/nginx.conf.template").read_text())
    assert frontend["stop_grace_period"] == f"{int(patience) + 10}s"


def test_documents_have_nginx_read_its_files_again_as_it_was_started() -> None:
    again = " ".join(["exec frontend", *services()["frontend"]["command"], "-s reload"])
    assert f"    docker compose {again} " in (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    assert f"`dc {again}`" in (ROOT / "docs/runbook.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("overrides", [(), ("seaweedfs",), ("dev",), ("cuda",)])
def test_only_nginx_faces_out(overrides: tuple[str, ...]) -> None:
    published = {
        (port.get("host_ip", "0.0.0.0"), port["published"]): name  # noqa: S104 -- what no address means
        for name, service in services(*overrides).items()
        for port in service.get("ports", [])
    }
    outside = {place: name for place, name in published.items() if place[0] != "127.0.0.1"}
    assert outside == {("0.0.0.0", "8080"): "frontend", ("0.0.0.0", "8443"): "frontend"}  # noqa: S104
    console = set() if "seaweedfs" in overrides else {"9001"}
    assert {port for _, port in published.keys() - outside.keys()} == {"3000", "5000", "8000", "9000", "9090"} | console


def test_each_network_joins_only_those_who_have_to_talk() -> None:
    networks: dict[str, set[str]] = {name: set() for name in config()["networks"]}
    for name, service in services().items():
        for network in service.get("networks", {}):
            networks[network].add(name)
    assert networks == {
        "edge": {"frontend", "serving", "exporter"},
        "app": {"mlflow", "serving", "training", "backup", "restore", "exporter", "prometheus", "grafana"},
        "data": {"postgres", "minio", "buckets", "mlflow", "training", "exporter"},
        "loopback": {"minio"},
    }
    assert config()["networks"]["data"]["internal"]


def test_an_internal_network_publishes_no_port() -> None:
    """So who has one is in another network too."""
    for name, service in services().items():
        if service.get("ports"):
            assert service["networks"].keys() - {"data"}, name


def test_the_server_believes_the_address_of_nginx_alone() -> None:
    frontend = services()["frontend"]["networks"]["edge"]["ipv4_address"]
    assert services()["serving"]["environment"]["TRUSTED_PROXIES"] == frontend
    assert [config()["networks"]["edge"]["ipam"]["config"][0]["subnet"]] == [f"{frontend.rpartition('.')[0]}.0/24"]


def test_services_start_in_the_order_of_their_health() -> None:
    needed = {name: service.get("depends_on", {}) for name, service in services().items()}
    for name, dependencies in needed.items():
        for other, how in dependencies.items():
            once = services()[other]["restart"] == "no"
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy"), (name, other)
            assert once or not services()[other].get("healthcheck", {}).get("disable")
    order = list(TopologicalSorter(needed).static_order())
    path = ["volumes", "minio", "buckets", "mlflow", "serving", "frontend"]
    assert [name for name in order if name in path] == path


@each_service
def test_health_is_asked_by_a_program_that_the_image_has(service: Service) -> None:
    check = service.get("healthcheck", {"disable": True})
    if check.get("disable"):
        assert service["restart"] == "no" or service["command"][1] == "backup"
        return
    kind, program, *_ = check["test"]
    assert (kind, program) == ("CMD", CHECKED_BY[image_of(service)]), "without a shell, which is another program"


def test_every_secret_is_a_file_that_one_command_makes(made: Path) -> None:
    wanted = {Path(found["file"]).name for one in ((), ("seaweedfs",)) for found in config(*one)["secrets"].values()}
    assert {path.name for path in made.iterdir()} == wanted
    mounted = {
        secret["source"]
        for one in ((), ("seaweedfs",))
        for service in services(*one).values()
        for secret in service.get("secrets", [])
    }
    assert mounted == {name for one in ((), ("seaweedfs",)) for name in config(*one)["secrets"]}


@each_service
def test_a_secret_is_nowhere_but_in_its_file(service: Service) -> None:
    for name, value in environment(service).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|_KEYS?(_|$)", name) or name.endswith("_FILE"):
            assert name.endswith("_FILE")
            assert value is None or value.removeprefix("/run/secrets/") in {s["source"] for s in service["secrets"]}
    assert "@" not in str(service.get("command")), "arguments are everybody's to read"


@systems.files
def test_secrets_are_in_a_folder_that_only_its_owner_enters(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    for path in made.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o444, "a container's user is not the file's owner"


def test_secrets_are_long_and_each_its_own(made: Path) -> None:
    values = [path.read_text() for path in made.iterdir() if path.suffix == "" and path.stat().st_size]
    assert len(set(values)) == len(values) == 7
    assert all(re.fullmatch(r"[0-9a-f]{20,}", value) for value in values)


def test_git_ignores_what_is_a_server_s_own() -> None:
    own = ["deploy/.env", "deploy/secrets/api_keys", "deploy/secrets/certificates/key.pem"]
    done = subprocess.run(["git", "check-ignore", *own], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == own


def test_secrets_are_made_once_and_shown_to_nobody(tmp_path: Path) -> None:
    first = make_secrets(tmp_path / "secrets")
    before = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    (tmp_path / "secrets/metrics_key").unlink()
    again = make_secrets(tmp_path / "secrets")
    after = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"metrics_key"}
    assert "made metrics_key\n" in again
    assert make_secrets(tmp_path / "secrets").endswith("nothing: all are there\n")
    assert not [value for value in {*before.values(), *after.values()} - {""} if value in first + again]


def test_every_setting_of_the_server_can_be_set_and_no_other() -> None:
    settings = {f"{name.upper()}_FILE" if name in SECRETS else name.upper() for name in Settings.model_fields}
    assert environment(services()["serving"]).keys() == settings


@each_service
def test_no_variable_is_set_that_nothing_reads(service: Service) -> None:
    image = image_of(service)
    read = READ_BY_IMAGES.get(image, set())
    read |= {name for file in (DEPLOY / "nginx").glob("*.template") for name in variables(file)}
    if image in OURS:
        read = set(read_by_us()) | {f"{name}_FILE" for name in NAMES} | {"LD_LIBRARY_PATH", "PYTHONPATH"}
    assert environment(service).keys() <= read


def test_the_example_names_every_variable_with_what_holds_without_it() -> None:
    files = sorted(DEPLOY.glob("compose*.yaml"))
    passed = {
        name
        for file in files
        for service in yaml.load(file.read_text(), Loader=Tags)["services"].values()  # noqa: S506 -- a SafeLoader
        for name, value in environment(service).items()
        if value is None
    }
    filled = {(name, text) for file in files for name, text in re.findall(r"\$\{(\w+):-(.*?)\}", file.read_text())}
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    example = dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z0-9_]+=", line))
    assert example.pop("COMPOSE_FILE") == "compose.yaml", "read by Compose itself"
    assert example.keys() == passed | {name for name, _ in filled}
    assert {(name, example[name]) for name, _ in filled} == filled, "one default each, and the example's is that"
    defaults = {name.upper(): field.get_default() for name, field in Settings.model_fields.items()}
    for name in passed & defaults.keys() - {"SERVE_WORKERS", "SERVE_THREADS"}:  # theirs: what the cores allow
        assert example[name] == shown(defaults[name]), name


def test_what_deploy_dotenv_says_reaches_the_services(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RATE_LIMIT=20/second\nSERVING_REPLICAS=3\nBACKUP_KEEP=3\nMAX_BODY_MB=5\n")
    found = config(settings=tmp_path / ".env")["services"]
    assert found["serving"]["environment"]["RATE_LIMIT"] == "20/second"
    assert found["serving"]["deploy"]["replicas"] == 3
    assert found["backup"]["command"][-1] == "--keep=3"
    assert found["frontend"]["environment"]["MAX_BODY_MB"] == found["serving"]["environment"]["MAX_BODY_MB"] == "5", (
        "one limit, of nginx and of the server"
    )


def test_in_deploy_the_files_are_those_of_its_dotenv_and_no_other_dotenv_is_read(tmp_path: Path) -> None:
    """The checkout's own is that of ./run, with settings of the same names."""
    deploy = shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns(".env", "secrets"))
    (tmp_path / ".env").write_text("MAX_BODY_MB=99\nCOMPOSE_FILE=compose.yaml:compose.dev.yaml\n")
    (deploy / ".env").write_text("COMPOSE_FILE=compose.yaml:compose.seaweedfs.yaml\n")
    typed_there = composed_in(deploy)
    named_above = composed_in(tmp_path, "--file=deploy/compose.yaml")
    assert image_of(typed_there["minio"]) == "seaweedfs"
    assert image_of(named_above["minio"]) == "minio", "as docs/deployment.md warns"
    for found in (typed_there, named_above):
        assert found["frontend"]["environment"]["MAX_BODY_MB"] == "20"
        assert found["serving"]["environment"]["MAX_BODY_MB"] is None


def image_of(service: Service) -> str:
    """postgres, of postgres:18.6; serving, of localhost/finger-counter/serving-cuda:0.1.0."""
    return str(service["image"]).partition(":")[0].rpartition("/")[2].removesuffix("-cuda")


def environment(service: Service) -> dict[str, str | None]:
    found: dict[str, str | None] = dict(service.get("environment") or {})
    found.pop("<<", None)
    return found


def read_by_us() -> Iterator[str]:
    """What our code, MLflow and boto3 take from the environment."""
    mlflow = Path(sysconfig.get_path("purelib"), "mlflow")
    sources = [file for folder in ("ops", "serve", "stages") for file in (ROOT / folder).rglob("*.py")]
    sources += [mlflow / "environment_variables.py", *(mlflow / "cli").glob("*.py")]
    for file in sources:
        yield from re.findall(r'"([A-Z][A-Z0-9_]+)"', file.read_text(encoding="utf-8"))
    yield from (name.upper() for name in Settings.model_fields)
    yield from (f"{name.upper()}_FILE" for name in SECRETS)
    yield from (str(names[1]) for names in BOTOCORE_DEFAUT_SESSION_VARIABLES.values())


def variables(template: Path) -> set[str]:
    return set(re.findall(r"\$\{([A-Z_]+)\}", template.read_text(encoding="utf-8")))


def shown(default: object) -> str:
    """As a person writes it into .env."""
    if default is None or default == ():
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


class Tags(yaml.SafeLoader):
    """Compose's own, !override and !reset, leave what they stand before as it is."""


def _tagged(loader: Tags, _: str, node: yaml.Node) -> object:
    match node:
        case yaml.MappingNode():
            return loader.construct_mapping(node, deep=True)
        case yaml.SequenceNode():
            return loader.construct_sequence(node, deep=True)
    return None


Tags.add_multi_constructor("!", _tagged)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_secrets(tmp_path / "secrets")
    return tmp_path / "secrets"


def make_secrets(folder: Path) -> str:
    command = [sys.executable, str(ROOT / "scripts/make_secrets.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stdout
    return done.stderr
