"""Calls the load generator and reads the one line it prints."""

import json
import subprocess


class LoadgenFailed(Exception):
    """It ended without a report; the message is what it said."""


class Loadgen:
    """The generator's binary, called against one server at a time."""

    def __init__(self, binary):
        self.binary = binary

    def report(self, arguments, timeout):
        """Its report, even when that counts errors; a report with errors is the caller's to judge."""
        output = self._run(arguments, timeout)
        lines = output.stdout.strip().splitlines()
        if not lines:
            raise LoadgenFailed(output.stderr.strip() or f"exit status {output.returncode}")
        return json.loads(lines[-1])

    def command(self, arguments, timeout):
        """For the commands that only succeed or fail."""
        output = self._run(arguments, timeout)
        if output.returncode != 0:
            raise LoadgenFailed(output.stderr.strip() or f"exit status {output.returncode}")

    def _run(self, arguments, timeout):
        try:
            return subprocess.run(
                [self.binary, *arguments], capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise LoadgenFailed(f"`{arguments[0]}` did not end within {timeout:.0f} s") from None
