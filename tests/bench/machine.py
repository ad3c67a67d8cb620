"""Facts about the machine, without which no figure means anything."""

import datetime
import os
import platform
import statistics
import time

# A log record of one small put with its framing.
SYNC_BYTES = 512
SYNC_ROUNDS = 200
# File systems that keep nothing on a disk: a sync on them is free and every write figure a fiction.
VOLATILE = {"tmpfs", "ramfs"}


def filesystem(directory):
    """Type of the file system that holds `directory`."""
    path = os.path.realpath(directory)
    best, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _device, point, this_kind, *_rest = line.split()
            point = point.encode().decode("unicode_escape")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, this_kind
    return kind


def fdatasync_microseconds(directory):
    """Median time of an fdatasync after a small write: into new space, and into space written before."""
    path = os.path.join(directory, "fdatasync-probe")
    block = b"x" * SYNC_BYTES
    times = {}
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for kind in ("growing", "overwriting"):
            os.lseek(descriptor, 0, os.SEEK_SET)
            taken = []
            for _ in range(SYNC_ROUNDS):
                began = time.perf_counter()
                os.write(descriptor, block)
                os.fdatasync(descriptor)
                taken.append((time.perf_counter() - began) * 1e6)
            times[kind] = round(statistics.median(taken), 1)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return times


def facts(directory):
    """Everything the tables name."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "filesystem": filesystem(directory),
        "fdatasync_us": fdatasync_microseconds(directory),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()
