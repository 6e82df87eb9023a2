"""The arithmetic of the dashboard's lines, run by Node: rates and quantiles of /metrics, and the ticks of an axis."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.native import ROOT

INSTALL = "node is not installed: apt install nodejs, of version 20 or newer"


def js(module: str, call: str, *arguments: Any) -> Any:
    """What the call of a function that module exports answers, NaN and Infinity as null."""
    if shutil.which("node") is None:
        pytest.skip(INSTALL)
    url = (ROOT / "serve/dashboard" / module).as_uri()
    code = f"import * as m from {json.dumps(url)}; console.log(JSON.stringify(m.{call}(...{json.dumps(arguments)})))"
    done = subprocess.run(["node", "--input-type=module", "-e", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sample(value: float, **labels: str) -> dict[str, Any]:
    return {"labels": labels, "value": value}


def look(seconds: float, **samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {"at": seconds * 1000, "samples": {f"fingers_{name}": values for name, values in samples.items()}}


def test_between_two_looks_at_nothing_nothing_happened() -> None:
    found = js("samples.js", "between", look(0), look(10))
    assert found["requests"] == found["errors"] == found["queue"] == 0
    assert found["latency"] == [None, None, None]
    assert found["unknown"] is found["faces"] is None
    assert found["hands"] == found["cpu"] == {}


def test_rates_are_of_the_time_between_and_leave_out_what_the_page_asks_itself() -> None:
    before = look(
        0, requests_total=[sample(100, route="/predict", code="200"), sample(5, route="/metrics", code="200")]
    )
    after = look(
        10,
        requests_total=[
            sample(130, route="/predict", code="200"),
            sample(10, route="/predict", code="422"),  # new since
            sample(50, route="/metrics", code="200"),
        ],
        errors_total=[sample(10, route="/predict", code="422"), sample(7, route="/health", code="503")],
    )
    found = js("samples.js", "between", before, after)
    assert found["requests"] == 4
    assert found["errors"] == 1


def test_a_server_that_began_anew_counts_from_nothing() -> None:
    before, after = look(0, pictures_total=[sample(5000)]), look(10, pictures_total=[sample(20)])
    assert js("samples.js", "between", before, after)["pictures"] == 2


def test_shares_parts_and_processes() -> None:
    before = look(0, process_cpu_seconds_total=[sample(1, process="api"), sample(8, process="worker-0")])
    after = look(
        10,
        hands_total=[sample(6, class_name="3"), sample(2, class_name="unknown")],
        unknown_hands_total=[sample(2)],
        pictures_total=[sample(10)],
        pictures_with_faces_total=[sample(4)],
        picture_seconds_sum=[sample(0.5, part="faces"), sample(0.2, part="detect")],
        picture_seconds_count=[sample(10, part="faces"), sample(10, part="detect")],
        process_cpu_seconds_total=[sample(2, process="api"), sample(13, process="worker-0")],
        process_memory_bytes=[sample(2**20 * 300, process="api")],
        gpu_memory_bytes=[sample(2**30, gpu="0")],
        gpu_busy=[sample(0.7, gpu="0")],
        queue_pictures=[sample(3)],
    )
    found = js("samples.js", "between", before, after)
    assert found["hands"] == {"3": 36, "unknown": 12}
    assert (found["unknown"], found["faces"], found["queue"]) == (0.25, 0.4, 3)
    assert found["parts"] == pytest.approx([None, None, 50, 20])
    assert found["cpu"] == pytest.approx({"api": 0.1, "worker-0": 0.5})
    assert found["memory"] == {"api": 300, "GPU 0": 1024}
    assert found["gpus"] == {"GPU 0": 0.7}


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ([], 0.5, None),
        ([[1, 0], [2, 0]], 0.5, None),
        ([[1, 10], [2, 10]], 0.5, 0.5),  # from 0 to the first edge
        ([[1, 0], [2, 10], [4, 20]], 0.5, 2),
        ([[1, 0], [2, 10], [4, 20]], 0.75, 3),
        ([[1, 0], [2, 10], [4, 20]], 1, 4),
    ],
)
def test_a_quantile_lies_within_its_bucket(buckets: list[list[float]], q: float, expected: float | None) -> None:
    assert js("samples.js", "quantile", buckets, q) == expected


def test_latency_is_of_pictures_and_beyond_the_last_bucket_its_edge() -> None:
    def buckets(route: str, *counts: float) -> list[dict[str, Any]]:
        return [sample(count, route=route, le=le) for le, count in zip(("0.1", "0.5", "+Inf"), counts, strict=True)]

    after = look(10, request_seconds_bucket=[*buckets("/predict", 50, 98, 100), *buckets("/models/load", 0, 0, 900)])
    assert js("samples.js", "between", look(0), after)["latency"] == pytest.approx([100, 475, 500])


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((0, 0), [0, 0.2, 0.4, 0.6, 0.8, 1][:2]),
        ((0, 273), [0, 100, 200, 300]),
        ((0.13, 0.98), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((-3, 4), [-4, -2, 0, 2, 4]),
        ((0.9999, 1), [0.9999, 0.99992, 0.99994, 0.99996, 0.99998, 1]),
    ],
)
def test_ticks_are_round_and_hold_all_values(span: tuple[float, float], expected: list[float]) -> None:
    assert js("scale.js", "ticks", *span) == expected


def test_ticks_of_epochs_are_whole_and_inside() -> None:
    assert js("scale.js", "inner", 1, 3, 8, True) == [1, 2, 3]
    assert js("scale.js", "inner", 1, 50, 5, True) == [10, 20, 30, 40, 50]


def test_moments_are_round_and_inside() -> None:
    start = 1_700_000_003_000
    assert js("scale.js", "moments", start, start + 60_000, 4) == [1_700_000_010_000 + n * 15_000 for n in range(4)]
    assert js("scale.js", "moments", start + 1, start + 2, 4) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.95123, "0.951"),
        (0.00012, "1.2e−4"),
        (7, "7"),
        (123.4, "123"),
        (12_345, "12.3 k"),
        (1_234_567, "1.23 M"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert js("scale.js", "short", value) == text
