"""The contenders: how each is started, prepared, paused and stopped.

Only one of them runs at any moment; the others are stopped by SIGSTOP, so that none of their timers, compactions or
garbage collections lands in another's figures.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Optional

from loadgen import LoadgenFailed
from workloads import KEY_BYTES, VALUE_BYTES

ROLES = 100
BENCH_USER = "bench"
BENCH_PASSWORD = "bench-password"
ROOT_PASSWORD = "root-password"
# The history of a whole run must fit: etcd's 2 GiB default does not hold three rounds of writes.
QUOTA_BYTES = 8 << 30
START_SECONDS = 60
STOP_SECONDS = 60


class ServerFailed(Exception):
    """A server did not start, or died; the message ends with what it logged last."""


@dataclass(frozen=True)
class Contender:
    """One column of the tables. `secured` means TLS, authorization and a user with a hundred roles."""

    id: str
    title: str
    product: str
    binary: Optional[str]
    secured: bool

    @property
    def is_plain_etcd(self):
        return self.product == "etcd" and not self.secured


class Server:
    """One running contender, in a fresh directory below `base`."""

    def __init__(self, contender, loadgen, base):
        self.contender = contender
        self.loadgen = loadgen
        self.directory = os.path.join(base, contender.id)
        self.data = os.path.join(self.directory, "data")
        self.certificates = os.path.join(self.directory, "certificates")
        self.port, self.peer_port = _free_ports()
        self.process = None
        self.log = None
        os.makedirs(self.directory)

    def start_fresh(self):
        """Starts it on an empty data directory and, if it is a secured one, fills in roles and users."""
        if self.contender.secured and self.contender.product == "etcd":
            self.loadgen.command(["make-certificates", self.certificates], 30)
        self.spawn()
        self.wait_until_ready()
        if self.contender.secured:
            setup = ["setup-auth", "--roles", str(ROLES), "--new-user", BENCH_USER]
            setup += ["--new-password", BENCH_PASSWORD]
            if self.contender.product == "etcd":
                setup += ["--root-password", ROOT_PASSWORD]
            self._loadgen_command(setup + self._administrator(), 120)

    def spawn(self):
        """Starts the process and returns at once."""
        self.log = open(os.path.join(self.directory, "log"), "ab")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ETCD", "KEYGATE"))
        }
        self.process = subprocess.Popen(
            self._command(),
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_ready(self, holds_keys=None):
        """Until it answers a linearizable range; with `holds_keys`, until it finds its first key again."""
        command = ["ready", "--patience-seconds", str(START_SECONDS)]
        if holds_keys is not None:
            command += ["--holds-keys", "--keys", str(holds_keys)]
        # Keygate makes its certificates while it starts.
        deadline = time.monotonic() + START_SECONDS
        while not all(os.path.exists(path) for path in self._files_needed()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise self.failure("did not make its certificates")
            time.sleep(0.002)
        self._loadgen_command(command + self._administrator(), START_SECONDS + 30)

    def measure(self, arguments, timeout):
        """The load generator's report, as the ordinary user of this server."""
        arguments = arguments + self._target() + ["--pid", str(self.process.pid), "--label", self.contender.id]
        arguments += ["--key-size", str(KEY_BYTES), "--value-size", str(VALUE_BYTES)]
        if self.contender.secured:
            arguments += ["--user", BENCH_USER, "--password", BENCH_PASSWORD]
        try:
            return self.loadgen.report(arguments, timeout)
        except LoadgenFailed as error:
            raise self.failure(str(error)) from None

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        raise self.failure("has no resident memory")

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """An ordinary stop, waited for."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise self.failure(f"did not stop within {STOP_SECONDS} s of SIGTERM") from None
        self.log.close()
        self.process = None

    def discard(self):
        """However it is, away with it and its data."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.log is not None:
            self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def failure(self, what):
        state = self.process.poll() if self.process else None
        fate = "" if state is None else f" (the process ended with {state})"
        return ServerFailed(f"{self.contender.id}: {what}{fate}; its log ends:\n{self._log_tail()}")

    def _log_tail(self):
        with open(os.path.join(self.directory, "log"), "rb") as log:
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join("    " + line for line in lines[-8:]) or "    (nothing)"

    def _command(self):
        contender = self.contender
        scheme = "https" if contender.secured else "http"
        client = f"{scheme}://127.0.0.1:{self.port}"
        common = ["--data-dir", self.data, "--listen-client-urls", client, "--advertise-client-urls", client]
        common += ["--quota-backend-bytes", str(QUOTA_BYTES)]
        if contender.product == "keygate" and contender.secured:
            # Certificates and authorization are what it does when nothing else is said.
            return [contender.binary, "serve", *common]
        peer = f"http://127.0.0.1:{self.peer_port}"
        common += ["--name", "bench", "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        common += ["--initial-cluster", f"bench={peer}", "--log-level", "error"]
        if contender.secured:
            common += ["--cert-file", os.path.join(self.certificates, "server.crt")]
            common += ["--key-file", os.path.join(self.certificates, "server.key")]
        if contender.product == "keygate":
            # Called as `etcd`, it takes etcd's flags as etcd takes them: plain HTTP and no authorization.
            link = os.path.join(self.directory, "etcd")
            if not os.path.islink(link):
                os.symlink(contender.binary, link)
            return [link, *common]
        return [contender.binary, *common]

    def _pki(self, name):
        return os.path.join(self.data, "pki", name)

    def _authority(self):
        if self.contender.product == "keygate":
            return self._pki("ca.pem")
        return os.path.join(self.certificates, "ca.crt")

    def _target(self):
        target = ["--endpoints", f"127.0.0.1:{self.port}"]
        if self.contender.secured:
            target += ["--cacert", self._authority()]
        return target

    def _administrator(self):
        """The target as root. Keygate's root certificate spares the password check in the restart figure."""
        target = self._target()
        if self.contender.secured and self.contender.product == "keygate":
            target += ["--cert", self._pki("root.pem"), "--key", self._pki("root-key.pem")]
        return target

    def _files_needed(self):
        if not self.contender.secured:
            return []
        if self.contender.product == "keygate":
            return [self._pki(name) for name in ("ca.pem", "root.pem", "root-key.pem")]
        return [self._authority()]

    def _loadgen_command(self, arguments, timeout):
        try:
            self.loadgen.command(arguments, timeout)
        except LoadgenFailed as error:
            raise self.failure(str(error)) from None


def _free_ports():
    sockets = [socket.socket() for _ in range(2)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
