"""A server as a child of this process: started, waited for, and stopped whatever happens."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mora_peft.errors import UserError

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_STOP = 90


@contextmanager
def running(
    command: list[str], port: int, log: Path, environment: Mapping[str, str] | None = None, patience: float = 600.0
) -> Iterator[str]:
    """The address of the server that `command` starts on `port`, which lives as long as the block.

    It is stopped with SIGTERM, which lets what runs come to its end, and killed with all its processes if that takes
    too long. Its output goes to the file `log`.

    Raises UserError where it ends, or does not answer within `patience` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # In a session of its own it gets no Ctrl-C from the terminal: it is stopped from here, once.
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(child, url, log, patience)
        yield url
    finally:
        stop(child)


def free_port() -> int:
    """A port on the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop(child: subprocess.Popen) -> int:
    """Ask the server to stop, wait until it has, and end what is left of its processes; its exit code."""
    with suppress(ProcessLookupError):
        child.terminate()
    try:
        child.wait(timeout=_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


def _wait(child: subprocess.Popen, url: str, log: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if child.poll() is not None:
            raise UserError(f"The server ended with {child.returncode} before it answered ({_last(log)}): see {log}.")
        with suppress(OSError):
            if urllib.request.urlopen(f"{url}/health", timeout=5).status == 200:
                return
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise UserError(f"The server did not answer within {patience:.0f} s: see {log}.")


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it wrote nothing"
