"""What no server tells of itself -> Prometheus: which servers answer, disks, the newest backup, certificates.

One small process in place of node_exporter, blackbox_exporter and a text file: it asks servers as `fingers status`
does, lists backups as `fingers backup` does, and reads a certificate where clients are shown it, since a file that was
renewed may not have been loaded.
"""

import logging
import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ops.ask import ASK, SECONDS, NoAnswer
from ops.backup.schedule import dated
from stages.params import StageError

logger = logging.getLogger(__name__)

PREFIX = "fingers"


@dataclass(frozen=True, eq=False)  # a registry keeps it in a dict
class Exporter(Collector):
    """Looks at everything anew at each scrape."""

    disks: Sequence[Path]
    backups: Path | None
    tls: Sequence[str]  # host:port
    environment: Mapping[str, str] = field(repr=False)  # the servers that it names are asked

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: a registry would scrape to find out."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        servers = [name for name, (variable, _) in ASK.items() if self.environment.get(variable)]
        with ThreadPoolExecutor() as pool:
            answering = dict(zip(servers, pool.map(self._answers, servers), strict=True))
            expiries = dict(zip(self.tls, pool.map(expiry, self.tls), strict=True))
        answering |= {address: seconds is not None for address, seconds in expiries.items()}
        yield family("server_up", "1: the server answers as it should", "server", answering)
        known = {address: seconds for address, seconds in expiries.items() if seconds is not None}
        yield family("certificate_expires_seconds", "when it does, since 1970", "address", known)
        usage = {str(path): shutil.disk_usage(path) for path in self.disks}
        yield family("disk_size_bytes", "of its file system", "path", {path: use.total for path, use in usage.items()})
        yield family("disk_free_bytes", "for who is not root", "path", {path: use.free for path, use in usage.items()})
        if self.backups:
            yield from of_backups(self.backups)

    def _answers(self, server: str) -> bool:
        try:
            ASK[server][1](self.environment)
        except NoAnswer:
            return False
        return True


def export(exporter: Exporter, host: str, port: int) -> None:
    """For ever. Raises StageError when it cannot listen there."""
    registry = CollectorRegistry()
    registry.register(exporter)
    try:
        _, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise StageError(f"{host}:{port}: {(error.strerror or str(error)).lower()}; --host, --port") from None
    logger.info("http://%s:%d/metrics", host, port)
    thread.join()


def of_backups(folder: Path) -> Iterator[GaugeMetricFamily]:
    found = list(dated(folder))
    yield GaugeMetricFamily(f"{PREFIX}_backups", "dated backups in the folder", len(found))
    if found:
        path, taken = found[-1]
        words = "when the newest one was begun, since 1970"
        yield GaugeMetricFamily(f"{PREFIX}_backup_time_seconds", words, taken.timestamp())
        yield GaugeMetricFamily(f"{PREFIX}_backup_size_bytes", "of the newest one", path.stat().st_size)


def expiry(address: str) -> float | None:
    """Of the certificate that a client is shown there, whoever signed it: s since 1970. None: no TLS server answers."""
    host, _, port = address.rpartition(":")
    try:
        pem = ssl.get_server_certificate((host, int(port)), timeout=SECONDS)
    except OSError:  # TLS' own errors among them
        return None
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()


def family(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    gauges = GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=[label])
    for value, number in values.items():
        gauges.add_metric([value], number)
    return gauges
