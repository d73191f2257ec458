#!/usr/bin/python3 -IS
# ruff: noqa: PTH123, PTH208 - `pathlib` takes longer to import than all of this takes
# Runs the command of a container, and after SIGTERM or SIGHUP waits for everything that the signal was for.
#
# tini hands a signal to the command's whole process group. A shell ends of it at once, and a container ends with its
# command: what the shell was waiting for, a training that saves a checkpoint, would be killed. How long it may take is
# decided by whoever sent the signal (`docker stop` kills after ten seconds).
import os
import signal
import sys
import time

# What ends a process that does not expect it. A handler is none in what is started: there each is as it was.
ENDING = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM")
WAITED_FOR = {signal.SIGHUP, signal.SIGTERM}
# Python itself ignores these, and what it starts is not to.
IGNORED_HERE = (signal.SIGPIPE, signal.SIGXFSZ)


def main(command):
    """Run a command; what its exit code is as a shell says it."""
    came = set()
    for name in ENDING:
        signal.signal(getattr(signal, f"SIG{name}"), lambda number, _: came.add(number))
    try:
        job = os.posix_spawnp(command[0], command, os.environ, setsigdef=IGNORED_HERE)
    except OSError as e:
        sys.stderr.write(f"{command[0]}: {e.strerror}\n")
        return 127 if isinstance(e, FileNotFoundError) else 126
    for number in tuple(came):  # before there was anything to hand it to
        os.kill(job, number)
    status = os.waitpid(job, 0)[1]
    while came & WAITED_FOR and others_of_group():
        time.sleep(0.05)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def others_of_group():
    """True while anything beside this process runs in its process group."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, _, group = file.read().rpartition(b") ")[2].split()[:3]
        except OSError:
            continue  # it has ended
        if int(group) == os.getpgrp() and int(name) != os.getpid() and state not in (b"Z", b"X"):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
