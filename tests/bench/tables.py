"""The tables that a run prints, as text for the terminal and as markdown for the README."""

from workloads import KEYS, KEY_BYTES, VALUE_BYTES, WORKLOADS


def detail(results):
    """Every cell: rate, latencies, CPU of the server, errors."""
    header = ["workload", "server", "op/s", "p50 ms", "p99 ms", "server CPU µs/op", "generator CPU µs/op", "errors"]
    rows = []
    for row in WORKLOADS:
        for contender in results.contenders:
            cell = results.median(row.id, contender.id)
            if cell is None:
                continue
            rows.append([
                f"{row.title} {row.connections}/{row.clients}",
                contender.title,
                f"{cell['ops_per_second']:,.0f}",
                f"{cell['p50']:.2f}",
                f"{cell['p99']:.2f}",
                f"{cell['server_cpu_us_per_op']:,.1f}",
                f"{cell['client_cpu_us_per_op']:,.1f}",
                str(cell["errors"]),
            ])
    return header, rows


def comparison(results):
    """One line for each workload: all contenders side by side, the ratio, the bar."""
    header = ["workload", *[contender.title for contender in results.contenders], "ratio", "bar", ""]
    rows = []
    for verdict in results.verdicts():
        cells = [verdict.title + ("" if verdict.unit == "/s" else f", {verdict.unit}")]
        for contender in results.contenders:
            value = verdict.values.get(contender.id)
            text = "–" if value is None else _number(value)
            cells.append(text + " ◂" if contender.id == verdict.peer else text)
        sign = "≥" if verdict.higher_is_better else "≤"
        cells.append("–" if verdict.ratio is None else f"{verdict.ratio:.2f}×")
        cells.append("–" if verdict.bar is None else f"{sign} {verdict.bar:.1f}×")
        cells.append(verdict.word)
        rows.append(cells)
    return header, rows


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def conditions(facts):
    """One paragraph: what was measured, where and when."""
    sync = facts["fdatasync_us"]
    versions = "; ".join(facts["versions"])
    rounds = "one round" if facts["rounds"] == 1 else f"medians of {facts['rounds']} rounds"
    return (
        f"{facts['date']}. {versions}. {facts['cpus']} CPUs ({facts['cpu_model']}), {facts['memory_gib']} GiB, Linux "
        f"{facts['kernel']}, {facts['filesystem']}, fdatasync {sync['overwriting']:.0f} µs into written space and "
        f"{sync['growing']:.0f} µs into new space. {KEYS:,} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES} bytes, "
        f"every write synced; {rounds} of {facts['seconds']:g} s; memory and restart with "
        f"{facts['memory_keys']:,} keys. Generator and servers share the CPUs, one server runs at a time. "
        "◂ marks the better of the plain etcds, which the ratio of Keygate with TLS and authorization refers to."
    )


def as_text(table):
    header, rows = table
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = []
    for line in [header, ["─" * width for width in widths], *rows]:
        cells = [line[0].ljust(widths[0])]
        for text, width, example in zip(line[1:], widths[1:], (rows or [header])[0][1:]):
            numeric = example[:1].isdigit() or example[:1] in "–≥≤"
            cells.append(text.rjust(width) if numeric else text.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(table):
    header, rows = table
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
