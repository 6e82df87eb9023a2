"""Rules, dashboards and runbook: about metrics that exist, tested, and in step with one another."""

import json
import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from ops.exporter import Exporter
from serve.metrics import Metrics, Now
from stages.files import write_json, write_text
from tests.certificates import shown, write_certificate
from tests.load import Load, wait_until
from tests.native import ROOT
from tests.platform import Platform
from tests.prometheus import FOLDER, Prometheus, installed, prometheus, promtool, rules, written
from tests.released import model, release
from tests.server import Server, start_server

ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDS = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana").rglob("*.json"))}
OF_PROMETHEUS = {"up", "scrape_duration_seconds", "ALERTS"}  # it makes them itself
WORDS = {"and", "or", "unless", "offset", "bool"}
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FOUND = SECTION.findall((ROOT / "docs/runbook.md").read_text())
SECTIONS = dict(FOUND)

KEYS = {"API_KEYS": "user-key-0123456789", "ADMIN_KEYS": "admin-key-01234567", "METRICS_KEYS": "scrape-key-0123456"}
NOWHERE = "127.0.0.1:9"  # the port of `discard`, where nobody listens
WINDOW = "20s"  # in place of Grafana's $__rate_interval
WITHOUT_VALUES = {  # on this machine, when all is well
    'ALERTS{alertstate="firing"}': "no alert fires",
    "fingers_gpu_busy": "there may be no GPU",
}
PROFILE = {"pictures": 40} | {
    name: {"p05": low, "p25": low, "p50": middle, "p75": high, "p95": high}
    for name, (low, middle, high) in {
        "brightness": (20, 120, 220),
        "sharpness": (1, 5000, 10000),
        "width": (320, 640, 1280),
        "height": (240, 480, 960),
        "confidence": (0.5, 0.9, 1.0),
    }.items()
}


def queries(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for asking in (*dashboard["annotations"]["list"], *(t for panel in dashboard["panels"] for t in panel["targets"])):
        yield asking["expr"]


def named(expression: str) -> set[str]:
    """The metrics in PromQL: what is left without labels, strings, durations, groupings and functions."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring) *\([^)]*\)|\boffset \w+', " ", expression)
    return set(re.findall(r"(?<![\w:.])[A-Za-z_][\w:]*(?!\s*\(|[\w:])", bare)) - WORDS


def existing(tmp_path: Path) -> set[str]:
    """Names of samples: of a server that has just started, of the exporter, and of the rules."""
    made = release(model(tmp_path / "detector.onnx"), None)
    metrics = Metrics()
    metrics.watch(lambda: Now("7", made, [], 0, 64, 0, {"api": 1}, blurring=True, ready=True))
    (tmp_path / "fingers-20260101T000000Z.zip").touch()
    collectors: list[Collector] = [metrics.registry, Exporter((tmp_path,), tmp_path, (), {})]
    families = [family for collector in collectors for family in collector.collect()]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    samples = {family.name + ending for family in families for ending in endings.get(family.type, ("",))}
    return samples | RECORDS.keys() | OF_PROMETHEUS


@pytest.mark.parametrize(
    ("expression", "metrics"),
    [
        ("1", set()),
        ("up == 0", {"up"}),
        ('absent(up{job="a b"} == 1)', {"up"}),
        ("sum by (job, le) (rate(a_bucket[5m])) / b:c_d offset 1h > 1e3 and e", {"a_bucket", "b:c_d", "e"}),
        ("time() - x_seconds > 36 * 3600 or y == 0", {"x_seconds", "y"}),
        ("rate(x[$__rate_interval])", {"x"}),
    ],
)
def test_metrics_are_found_in_an_expression(expression: str, metrics: set[str]) -> None:
    assert named(expression) == metrics


@pytest.mark.parametrize("name", [*ALERTS, *RECORDS])
def test_every_metric_in_a_rule_exists(name: str, tmp_path: Path) -> None:
    rule = ALERTS[name]["expr"] if name in ALERTS else RECORDS[name]
    assert named(rule)
    assert named(rule) <= existing(tmp_path)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_metric_on_a_dashboard_exists(name: str, tmp_path: Path) -> None:
    for expression in queries(DASHBOARDS[name]):
        assert named(expression)
        assert named(expression) <= existing(tmp_path), expression


def test_every_recorded_series_is_used() -> None:
    expressions = [rule["expr"] for rule in ALERTS.values()] + list(RECORDS.values())
    expressions += [expression for dashboard in DASHBOARDS.values() for expression in queries(dashboard)]
    assert RECORDS.keys() <= {name for expression in expressions for name in named(expression)}


@installed
def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    targets = dict.fromkeys(("serving", "platform", "prometheus"), "127.0.0.1:1")
    done = promtool("check", "config", written(tmp_path, targets, "key"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(list(FOLDER.glob("rules/*.yml")))
    as_deployed = promtool("check", "config", "--syntax-only", FOLDER / "prometheus.yml")
    assert as_deployed.returncode == 0, as_deployed.stderr


@installed
@pytest.mark.parametrize("path", sorted(FOLDER.glob("tests/*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    groups = [group for path in FOLDER.glob("tests/*.yml") for group in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for group in groups for case in group["alert_rule_test"] if case["alertname"] == name]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert() -> None:
    assert sorted(name for name, _ in FOUND) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_what_users_see_where_to_look_and_what_to_do(name: str) -> None:
    parts = re.findall(r"^\*\*(.+?):\*\*|^ {4}(?=\S)", SECTIONS[name], re.MULTILINE)
    assert list(dict.fromkeys(parts)) == ["Means", "Users see", "", "Do"], "the unnamed part is commands"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_leads_to_its_section(name: str) -> None:
    assert ALERTS[name]["labels"]["severity"] in ("critical", "warning")
    assert ALERTS[name]["annotations"].keys() == {"summary", "runbook"}
    assert ALERTS[name]["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_dashboards_are_told_apart_and_read_what_is_provisioned() -> None:
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/datasources/prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) == 3
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_explain_themselves_and_do_not_overlap(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.fixture(scope="module")
def observed(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped a server under load and the exporter of a whole platform, long enough for each rate."""
    folder = tmp_path_factory.mktemp("observed")
    write_text(folder / "serving/dvc.yaml", "stages: {}\n")
    made = release(model(folder / "serving/models/detector.onnx"), None, input_profile=PROFILE)
    write_json(folder / "serving/models/release.json", made.model_dump())
    (folder / f"fingers-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip").write_bytes(b"a backup")
    certificate = write_certificate(folder / "own.pem", datetime.now(UTC) + timedelta(days=90))
    with (
        shown(certificate) as address,
        exported(Exporter((folder,), folder, (address,), platform.environment)) as exporter,
        started(folder / "serving") as server,
        prometheus(
            folder, {"serving": server.url.removeprefix("http://"), "platform": exporter}, KEYS["METRICS_KEYS"], NOWHERE
        ) as running,
        Load(server, KEYS["API_KEYS"]).running(),
        disturbed(server),
    ):
        with suppress(AssertionError):  # a test says which
            wait_until(lambda: not silent(running), 90)
        yield running


@pytest.mark.slow
@installed
def test_every_target_is_read_with_the_key_for_metrics_alone(observed: Prometheus) -> None:
    targets = observed.ask("targets")["activeTargets"]
    assert {(each["labels"]["job"], each["health"], each["lastError"]) for each in targets} == {
        (job, "up", "") for job in ("serving", "platform", "prometheus")
    }


@pytest.mark.slow
@installed
def test_every_rule_is_evaluated_and_no_alert_fires_when_all_is_well(observed: Prometheus) -> None:
    found = [rule for group in observed.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in found} == ALERTS.keys() | RECORDS.keys()
    assert [rule for rule in found if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in found if rule.get("state") == "firing"] == []


@pytest.mark.slow
@installed
def test_every_series_that_an_alert_reads_is_there(observed: Prometheus) -> None:
    for alert in ALERTS.values():
        for name in named(alert["expr"]):
            assert values(observed, name), name


@pytest.mark.slow
@installed
def test_every_query_of_every_dashboard_has_a_value(observed: Prometheus) -> None:
    assert silent(observed) == []


@pytest.mark.slow
@installed
def test_who_is_told_is_read_from_a_file_of_its_own(observed: Prometheus) -> None:
    (active,) = observed.ask("alertmanagers")["activeAlertmanagers"]
    assert active["url"] == f"http://{NOWHERE}/api/v2/alerts"


def silent(running: Prometheus) -> list[str]:
    """Queries of dashboards and rules that have no value yet and should."""
    asked = {expression for dashboard in DASHBOARDS.values() for expression in queries(dashboard)} | RECORDS.keys()
    return sorted(asked - WITHOUT_VALUES.keys() - {expression for expression in asked if values(running, expression)})


def values(running: Prometheus, expression: str) -> list[float]:
    """Without those that are no number."""
    found = running.query(expression.replace("$__rate_interval", WINDOW))
    return [value for value in (float(each["value"][1]) for each in found) if not math.isnan(value)]


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    server = start_server(folder, None, **KEYS)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def exported(exporter: Exporter) -> Iterator[str]:
    """host:port, as ops.exporter.export answers there, until it is not needed."""
    registry = CollectorRegistry()
    registry.register(exporter)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def disturbed(server: Server) -> Iterator[None]:
    """Every second a model takes its own place, and a picture is none: what dashboards mark."""
    ended = threading.Event()

    def disturb() -> None:
        with httpx.Client(base_url=server.url, headers={"X-API-Key": KEYS["ADMIN_KEYS"]}, timeout=60) as client:
            while not ended.wait(1):
                client.post("/models/load", json={"version": "release"}).raise_for_status()
                client.post("/predict", content=b"no picture", headers={"Content-Type": "image/jpeg"})

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
