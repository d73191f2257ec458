"""The process that keeps one tunnel up: it starts ssh, and again when it ended, until it is told to stop.

It has one thread, as the kernel ends ssh together with the thread that started it (`process.start_bound`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import files, linux, ports, process, procs
from kit.errors import KitError
from kit.frozen import dataclass
from kit.remote import ssh
from kit.remote.tunnels import state
from kit.remote.tunnels.forward import Gate, Output
from kit.remote.tunnels.state import Record, Tunnel

if TYPE_CHECKING:
    import subprocess

FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
# A connection that held for so long was a good one.
STEADY_S = 60.0
# ssh limits the connecting, but not the logging in.
CONNECT_LIMIT_S = 60.0
PATIENCE_S = 3.0
# How often the files are looked after, and how often a waiting supervisor looks whether waiting is still right.
LOOK_S, WAIT_LOOK_S = 5.0, 1.0
# Part of ssh's text, in lower case, of failures that do not go away by themselves.
LASTING = (
    "remote host identification has changed",
    "host key verification failed",
    "permission denied",
    "too many authentication failures",
    "bad configuration option",
    "bad owner or permissions",
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a connection ended."""

    text: str  # what ssh printed
    problem: str
    held_s: float = 0.0  # how long it was up
    is_port_taken: bool = False

    @property
    def is_lasting(self) -> bool:
        return any(part in self.text.lower() for part in LASTING)


def main(arguments: Sequence[str]) -> None:
    """Take over a tunnel: its name, the descriptors of its lock, its port's reservation and its opener, and as JSON all
    that is known of it and how ssh is called.
    """
    identity, lock, reservation, opener = arguments[0], *map(int, arguments[1:4])
    order = json.loads(arguments[4])
    # None of them is for ssh.
    for handle in (lock, reservation, opener):
        os.set_inheritable(handle, False)
    with socket.socket(fileno=opener) as other:
        other.settimeout(10)
        Supervisor(
            record=Record(
                tunnel=Tunnel(**{**order["tunnel"], "id": identity, "pid": os.getpid()}),
                machine=state.machine(),
                boot=procs.boot(),
                start=procs.start_time(os.getpid()),
            ),
            command=order["command"],
            ending=order["ending"],
            socket_path=Path(order["socket"]),
            folder=Path(order["folder"]),
            lock=lock,
            reservation=reservation,
            opener=other,
        ).run()


def delay_s(failures: int, *, is_lasting: bool) -> float:
    """How long to wait after so many connections in a row that failed."""
    if is_lasting:
        return LONGEST_DELAY_S
    jitter = 0.75 + 0.25 * int.from_bytes(os.urandom(2), "big") / 0xFFFF
    return min(FIRST_DELAY_S * 2.0 ** min(failures - 1, 10), LONGEST_DELAY_S) * jitter


class Supervisor:
    """Keeps one tunnel up. The opener is told of the first connection; without it there is no second."""

    def __init__(
        self,
        *,
        record: Record,
        command: Sequence[str],
        ending: Sequence[str],
        socket_path: Path,
        folder: Path,
        lock: int,
        reservation: int,
        opener: socket.socket | None,
    ) -> None:
        self.record = record
        self.command = list(command)
        # Of a tunnel through the shared connection: what ends its forward.
        self.ending = list(ending)
        self.socket_path = socket_path  # which ssh forwards
        self.folder = folder  # where ssh runs
        self.lock = lock
        self.reservation = reservation  # of the local port, also while nothing listens on it
        self.opener = opener
        self.child: subprocess.Popen[bytes] | None = None
        self.child_input: int | None = None  # while it is open, ssh lasts
        self.gate: Gate | None = None
        self.is_ending = self.is_poked = False
        self.woken, wake = os.pipe()
        for handle in (self.woken, wake):
            os.set_blocking(handle, False)
        # A signal ends a wait at once.
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGUSR1, self._poke)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _end(self, *_: object) -> None:
        self.is_ending = True

    def _poke(self, *_: object) -> None:
        self.is_poked = True

    def run(self) -> None:
        """Keep the tunnel up until a signal says to end, or until the opener went away before it was up."""
        failures = 0
        try:
            while not self.is_ending:
                ended = self._connection()
                if self.is_ending:
                    break
                if self.opener:
                    # The first one. The opener has the lock too, and removes the files when this has ended.
                    self._tell({"text": ended.text, "problem": ended.problem, "is_port_taken": ended.is_port_taken})
                    return
                failures = 1 if ended.held_s >= STEADY_S else failures + 1
                self._publish("down", problem=ended.problem, tries=failures, is_lasting=ended.is_lasting)
                seconds = delay_s(failures, is_lasting=ended.is_lasting)
                # Whether the shared connection is there again is seen on this machine.
                self._pause(min(seconds, LOOK_S) if self.ending else seconds, is_lasting=ended.is_lasting)
        except Exception as e:
            self._tell({"text": "", "problem": f"unexpected {type(e).__name__}: {e}", "is_port_taken": False})
            raise
        finally:
            self._end_ssh()
            # Before the lock: who gets that next may want the same port.
            os.close(self.reservation)
            if self.is_ending or not self.opener:
                state.give_up(self.record.tunnel.id, self.lock)

    def _connection(self) -> Ended:
        """Hold one connection from its start to its end."""
        port = self.record.tunnel.local_port
        taken = f"port {port} on 127.0.0.1 was taken by another program"
        if not ports.is_free(port):
            return Ended(text="", problem=taken, is_port_taken=True)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            self._start_ssh(writer)
        except (KitError, OSError) as e:
            os.close(reader)
            return Ended(text=str(e), problem=str(e))
        finally:
            os.close(writer)
        try:
            return self._held(Output(reader), taken)
        finally:
            self._end_ssh()
            os.close(reader)

    def _held(self, output: Output, taken: str) -> Ended:
        """Follow ssh until it has ended, or until there is a reason to end it."""
        assert self.child is not None
        port = self.record.tunnel.local_port
        begun, up_at = time.monotonic(), 0.0
        while (is_over := self.child.poll()) is None and not self.is_ending:
            handles = [*([] if output.is_over else [output.handle]), *([self.gate.handle] if self.gate else [])]
            self._wait(LOOK_S if up_at else WAIT_LOOK_S, *handles)
            output.read()
            if self.gate:
                self.gate.serve()
            self._look_after_files()
            if not self.gate and output.is_up:
                if not self.socket_path.is_socket():
                    return self._failed(f"{output.text}\n{self.socket_path} is not forwarded", 0.0)
                if not self._opened_gate(port):
                    return Ended(text=output.text, problem=taken, is_port_taken=True)
            while self.gate and output.lives:
                life = output.lives.popleft()
                self.gate.answered(life)
                problem = "" if life else f"{self.record.tunnel.container} does not run, or its engine does not answer"
                if self.opener and problem:
                    return Ended(text="", problem=problem)
                if not up_at:
                    up_at = time.monotonic()
                    output.forget()
                    self._up()
                if problem != self.record.tunnel.problem:
                    self._publish("down" if problem else "up", problem=problem)
            if self.gate and self.is_poked:
                self.is_poked = False
                self.gate.look()
            if not up_at and time.monotonic() - begun > CONNECT_LIMIT_S:
                return self._failed(f"{output.text}\nlogging in timed out", 0.0)
        if is_over is not None:
            output.read()
        return self._failed(output.text, time.monotonic() - up_at if up_at else 0.0)

    def _failed(self, text: str, held_s: float) -> Ended:
        target = self.record.tunnel.target
        if self.ending:
            problem = f"the connection to {target} is closed; the next kit command there asks for the login"
            return Ended(text="", problem=problem, held_s=held_s)
        if held_s:
            last = text.strip().rpartition("\n")[2]
            problem = f"the connection to {target} ended" + (f": {last}" if last else "")
            return Ended(text=text, problem=problem, held_s=held_s)
        return Ended(text=text, problem=ssh.failure(target, 255, text).message, held_s=held_s)

    def _up(self) -> None:
        """The tunnel is up. At the first time it counts only if the opener is still there to take it."""
        if self.opener and not self._is_taken():
            self.is_ending = True
            return
        self._publish("up")
        if self.opener:
            # It returns now, and finds the tunnel up in the file.
            self.opener.close()
            self.opener = None

    def _is_taken(self) -> bool:
        self._tell({"is_up": True})
        with contextlib.suppress(OSError):
            return self.opener is not None and self.opener.recv(1) != b""
        return False

    def _tell(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            if self.opener:
                self.opener.sendall(json.dumps(answer).encode() + b"\n")

    def _start_ssh(self, output: int) -> None:
        theirs, self.child_input = os.pipe()
        os.set_blocking(self.child_input, False)
        try:
            self.child = self._ssh(self.command, output=output, input=theirs)
        finally:
            os.close(theirs)
        self.record = replace(self.record, ssh_pid=self.child.pid, ssh_start=procs.start_time(self.child.pid))
        tunnel, is_lasting = self.record.tunnel, self.record.is_lasting
        self._publish("connecting", problem=tunnel.problem, tries=tunnel.tries, is_lasting=is_lasting)

    def _ssh(self, command: Sequence[str], *, output: int, input: int | None = None) -> subprocess.Popen[bytes]:
        environment = {
            "LC_ALL": "C",  # what ssh says is read
            "SSH_ASKPASS_REQUIRE": "never",  # no window asks behind the user's back, for a jump host either
            "SHELL": "/bin/sh",  # runs a ProxyCommand; the user's own may greet, or be none that runs anything
            state.MARK: self.record.tunnel.id,
        }
        folder = self.folder if self.folder.is_dir() else Path("/")
        return process.start_bound(command, output=output, input=input, env=environment, cwd=folder)

    def _opened_gate(self, port: int) -> bool:
        """Listen on the port; False when another program does."""
        try:
            self.gate = Gate(port, self.socket_path, self._ask)
        except OSError:
            return False
        self.gate.look()
        return True

    def _ask(self) -> None:
        """Ask the other side which life the container is in."""
        # An ssh that takes no line is about to end.
        with contextlib.suppress(OSError):
            if self.child_input is not None:
                os.write(self.child_input, b"\n")

    def _end_ssh(self) -> None:
        """End ssh and what it started, such as the ssh to a jump host."""
        child, self.child = self.child, None
        gate, self.gate = self.gate, None
        if gate:
            gate.close()
        if self.child_input is not None:
            os.close(self.child_input)
            self.child_input = None
        if child is not None:
            if self.ending:
                with contextlib.suppress(KitError):
                    process.run(self.ending, timeout_s=PATIENCE_S, check=False)
            process.end_bound(child, patience_s=PATIENCE_S)
        self.socket_path.unlink(missing_ok=True)

    def _publish(self, status: state.Status, *, problem: str = "", tries: int = 0, is_lasting: bool = False) -> None:
        tunnel = replace(self.record.tunnel, status=status, problem=problem, tries=tries)
        self.record = replace(self.record, tunnel=tunnel, is_lasting=is_lasting)
        self._write()

    def _write(self) -> None:
        try:
            state.write(self.record)
        except OSError:
            # A full disk is no reason to end one that is up; the next look at the files tries again.
            if self.opener:
                raise

    def _look_after_files(self) -> None:
        """Write the record again when somebody removed or changed it; end when nobody can find this tunnel any more."""
        identity = self.record.tunnel.id
        if not files.is_at(self.lock, state.file(identity, "lock")):
            self.is_ending = True
        elif state.read(identity) != self.record:
            self._write()

    def _pause(self, seconds: float, *, is_lasting: bool) -> None:
        """Wait until the next connection is due, or until something says that it may work now."""
        self.is_poked = False
        end, clock, routes = time.monotonic() + seconds, linux.sleep_clock(), linux.network()
        while (left := end - time.monotonic()) > 0 and not self.is_ending and not self.is_poked:
            self._wait(min(left, WAIT_LOOK_S))
            self._look_after_files()
            if linux.sleep_clock() - clock > 2 or (not is_lasting and linux.network() != routes):
                return

    def _wait(self, seconds: float, *handles: int) -> None:
        """Wait for a signal, for the opener's end, or for one of these descriptors."""
        watched: list[int | socket.socket] = [self.woken, *handles, *([self.opener] if self.opener else [])]
        ready = select.select(watched, [], [], seconds)[0]
        if self.woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.woken, 4096)
        if self.opener in ready:
            # It says nothing before it is told something, so this is its end.
            self.is_ending = True
