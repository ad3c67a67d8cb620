"""What the rounds measured, reduced to medians and held against the bars."""

import statistics
from dataclasses import dataclass
from typing import Optional

from workloads import FOOTPRINTS, WORKLOADS

METRICS = ["ops_per_second", "p50", "p99", "server_cpu_us_per_op", "client_cpu_us_per_op", "server_rss_mib"]
CANDIDATE = "keygate-secured"
# Neither release is the faster one everywhere, so a bar is judged only when both have been measured.
PLAIN_ETCDS = 2


@dataclass(frozen=True)
class Verdict:
    """One row of the comparison. `word` is PASS, MISS, `no bar` or `not measured`."""

    id: str
    title: str
    unit: str
    values: dict
    peer: Optional[str]
    ratio: Optional[float]
    bar: Optional[float]
    higher_is_better: bool
    word: str


class Results:
    """All reports of a run by row and contender."""

    def __init__(self, contenders):
        self.contenders = contenders
        self.cells = {}
        self.footprints = {}
        self.failures = []

    def add(self, row, contender, report):
        self.cells.setdefault(row, {}).setdefault(contender, []).append(report)
        if report["errors"]:
            self.failures.append(f"{row}, {contender}: {report['errors']} errors, first: {report['first_error']}")

    def add_footprint(self, contender, field, value):
        self.footprints.setdefault(field, {}).setdefault(contender, []).append(value)

    def fail(self, message):
        self.failures.append(message)

    def median(self, row, contender):
        """Medians over the rounds, and all errors; None if this cell was never measured."""
        reports = self.cells.get(row, {}).get(contender)
        if not reports:
            return None
        medians = {metric: statistics.median(report[metric] for report in reports) for metric in METRICS}
        medians["errors"] = sum(report["errors"] for report in reports)
        medians["rounds"] = len(reports)
        return medians

    def verdicts(self):
        rows = []
        for row in WORKLOADS:
            if row.id in self.cells:
                values = {}
                for contender in self.contenders:
                    medians = self.median(row.id, contender.id)
                    if medians:
                        values[contender.id] = medians["ops_per_second"]
                title = f"{row.title} ({row.connections} conn, {row.clients} cl)"
                rows.append(self._verdict(row.id, title, "/s", values, row.bar, True))
        for row in FOOTPRINTS:
            measured = self.footprints.get(row.field, {})
            if measured:
                values = {contender: statistics.median(all_) for contender, all_ in measured.items()}
                rows.append(self._verdict(row.id, row.title, row.unit, values, row.bar, False))
        return rows

    def _verdict(self, row, title, unit, values, bar, higher_is_better):
        plain = [c.id for c in self.contenders if c.is_plain_etcd and c.id in values]
        best = max if higher_is_better else min
        peer = best(plain, key=values.get) if plain else None
        ratio = None
        if peer and CANDIDATE in values and values[peer] > 0:
            ratio = values[CANDIDATE] / values[peer]
        if bar is None:
            word = "no bar"
        elif ratio is None or len(plain) < PLAIN_ETCDS:
            word = "not measured"
        else:
            word = "PASS" if (ratio >= bar if higher_is_better else ratio <= bar) else "MISS"
        return Verdict(row, title, unit, values, peer, ratio, bar, higher_is_better, word)

    def as_json(self):
        medians = {
            row: {contender: self.median(row, contender) for contender in by_contender}
            for row, by_contender in self.cells.items()
        }
        return {
            "medians": medians,
            "footprints": self.footprints,
            "verdicts": [vars(verdict) for verdict in self.verdicts()],
            "failures": self.failures,
            "rounds": self.cells,
        }
