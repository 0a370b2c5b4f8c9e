"""What a server's metrics say, read as Prometheus reads them."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from support.servers.polling import wait_for
from transparent_llm_server.app import Server

LOOPBACK = "127.0.0.1:0"


class Figures:
    """One scrape."""

    def __init__(self, address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
            self.families = list(text_string_to_metric_families(response.read().decode()))
        self._samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels, all if none are given; 0 if there is none."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())

    def by(self, label: str, name: str) -> dict[str, float]:
        """Sums by a label, of what is not 0."""
        sums: Counter[str] = Counter()
        for sample in self._samples:
            if sample.name == name and sample.value:
                sums[sample.labels[label]] += sample.value  # type: ignore[assignment]  # floats
        return dict(sums)

    @property
    def labels(self) -> set[tuple[str, tuple[str, ...]]]:
        """Names of samples with the names of their labels."""
        return {(s.name, tuple(sorted(s.labels))) for s in self._samples}

    @property
    def series(self) -> int:
        """How many there are."""
        return len({(s.name, *sorted(s.labels.items())) for s in self._samples})


def figures(server: Server) -> Figures:
    return Figures(server.metrics_address)


def settled(server: Server, wanted: Mapping[str, float], name: str, label: str) -> Figures:
    """A scrape in which a metric is this by a label; streams are counted after their last message has arrived."""
    scrapes: list[Figures] = []

    def found() -> dict[str, float]:
        scrapes[:] = [figures(server)]
        return scrapes[0].by(label, name)

    wait_for(found, dict(wanted), f"{name} by {label}")
    return scrapes[0]
