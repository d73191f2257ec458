"""A person's laptop: a home, an ssh configuration and a network of its own, and no container engine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kit.remote.tunnels.forward import UP_LINE
from tests.engine.conftest import KIT
from tests.engine.remote.network import Link

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, *, timeout_s: float = 60, interval_s: float = 0.1) -> Found:
    """What `look` returns as soon as it is true; fails the test if it never is, with what it last was."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; at the end: {found!r}"
        time.sleep(interval_s)
    return found


class Job:
    """A command of the client's that goes on while the test does."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def until(self, text: str, *, timeout_s: float = 120) -> None:
        """Wait until it has printed a text; fails when it ends without."""

        def look() -> bool:
            has_ended = self.process.poll() is not None
            assert text in self.out or not has_ended, f"ended with {self.process.returncode}: {self.out}\n{self.err}"
            return text in self.out

        try:
            eventually(look, f"{text!r} in the output", timeout_s=timeout_s)
        except AssertionError as e:
            raise AssertionError(f"{e}\nout: {self.out}\nerr: {self.err}") from None

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells every process in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """`kill -9` of kit alone, not of what it started."""
        self.process.kill()
        self.process.wait(timeout=20)

    def code(self, *, timeout_s: float = 60) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {timeout_s:g} s\nout: {self.out}\nerr: {self.err}") from None


class Client:
    """Runs kit and other programs on the client's side of the link."""

    def __init__(self, folder: Path, link: Link, programs: str) -> None:
        self.folder, self.link = folder, link
        self.ssh_config = folder / "ssh_config"
        self.environment = {
            # `docker` is there, but no engine: a command that does not go to the host fails.
            "PATH": os.pathsep.join(filter(None, [programs, "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])),
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "KIT_ENGINE": "private",
            "KIT_ENGINE_DIR": str(folder / "no-engine"),
            "KIT_SSH": f"ssh -F {shlex.quote(str(self.ssh_config))}",
        }
        for name in ("home", "state", "config", "cache", "run", "work"):
            (folder / name).mkdir(mode=0o700)
        self.work = folder / "work"
        self._jobs: list[Job] = []

    def _options(self, cwd: Path | None, variables: Mapping[str, str] | None) -> dict[str, Any]:
        return {
            "cwd": cwd or self.work,
            "env": {**self.environment, **(variables or {})},
            "stdin": subprocess.DEVNULL,
        }

    def run(
        self, *command: str, timeout_s: float = 120, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. What it leaves running must not hold its output, or this does not return."""
        return subprocess.run(
            self.link.command(*command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **self._options(cwd, env),
        )

    def kit(
        self, *arguments: str, code: int = 0, timeout_s: float = 120, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `kit`; fails the test when its exit code is another one, or when it prints a traceback."""
        done = self.run(KIT, *arguments, timeout_s=timeout_s, cwd=cwd, env=env)
        said = f"kit {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def json(self, *arguments: str, **options: Any) -> Any:
        """What `kit --json` prints."""
        return json.loads(self.kit("--json", *arguments, **options).stdout)

    def start(self, *arguments: str, cwd: Path | None = None, **env: str) -> Job:
        """Start `kit` as a shell does: in a process group of its own, which Ctrl-C reaches."""
        number = len(self._jobs)
        out, err = self.folder / f"out-{number}", self.folder / f"err-{number}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self.link.command(KIT, *arguments),
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                **self._options(cwd, env),
            )
        self._jobs.append(Job(process, out, err))
        return self._jobs[-1]

    def python(self, code: str) -> str:
        """Run Python code in the environment of the client's kit; returns what it printed."""
        done = self.run(sys.executable, "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Close every tunnel, and every shared connection, as they do by themselves when nothing uses them."""
        self.kit("tunnel", "close", "--all")
        for control in (self.folder / "run").glob("kit/*/control"):
            self.run("ssh", "-o", f"ControlPath={control}", "-O", "exit", "any", timeout_s=20)

    def leftovers(self) -> dict[int, str]:
        """The processes of the client's that are neither the shared connection of a host nor a tunnel's."""
        return {
            pid: words
            for pid, words in self.link.processes().items()
            if "/control [mux]" not in words and "ControlPersist" not in words and not is_of_a_tunnel(words)
        }

    def is_quiet(self) -> bool:
        return not self.link.processes()

    def end(self) -> None:
        for job in self._jobs:
            if job.process.poll() is None:
                job.process.kill()
                job.process.wait(timeout=20)


def is_of_a_tunnel(words: str) -> bool:
    """True for a tunnel's supervisor, and for its ssh."""
    return "-m kit.remote.tunnels" in words or (UP_LINE in words and " -L " in words)
