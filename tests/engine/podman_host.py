"""A host with Podman: an account that runs containers by itself (rootless), with no right to any other engine."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit
from kit.engine import connect
from kit.image import base
from tests.engine.remote.accounts import Account, add_account, remove_account
from tests.engine.sshd import Server

BASE = "docker.io/kit/base:bookworm"
TUN = Path("/dev/net/tun")
PROGRAMS = {
    "podman": "podman",
    "newuidmap": "uidmap",
    "slirp4netns": "slirp4netns",
    "useradd": "passwd",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str:
    """Why no such host can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root, for accounts"
    for program, package in PROGRAMS.items():
        if not shutil.which(program, path=SYSTEM_PATH):
            return f"needs Podman for an ordinary user: install {package}"
    if not (shutil.which("runc", path=SYSTEM_PATH) or shutil.which("crun", path=SYSTEM_PATH)):
        return "needs Podman for an ordinary user: install runc"
    if not TUN.exists():
        return f"needs {TUN}, for the network of Podman's containers"
    return ""


def skip_without() -> None:
    """Skip the test where no such host can be made; fail it where `make test` could have installed what is missing."""
    if reason := why_not():
        if os.environ.get("KIT_REQUIRE_ENGINE") == "1" and os.geteuid() == 0 and shutil.which("apt-get"):
            pytest.fail(f"KIT_REQUIRE_ENGINE=1, but a test {reason}", pytrace=False)
        pytest.skip(reason)


def base_archive(folder: Path) -> Path:
    """kit's Debian base as an archive: the one kept on disk, else a new one in the folder."""
    archive = base.archive_of("bookworm")
    if not archive.is_file():
        archive = folder / "base.tar"
        base.make("bookworm", archive, connect())
    return archive


class PodmanAccount:
    """An account with rootless Podman. Every file and process of it is gone after `remove`."""

    def __init__(self, folder: Path) -> None:
        """`folder`: an empty one that everybody may look into."""
        self._undo = contextlib.ExitStack()
        self.folder, self.home = folder, folder / "home"
        self.account: Account = add_account(f"kit-podman-{os.urandom(3).hex()}", self.home)
        self._undo.callback(remove_account, self.account)
        try:
            self._set_up()
        except BaseException:
            self.remove()
            raise

    @property
    def name(self) -> str:
        return self.account.name

    @property
    def uid(self) -> int:
        return self.account.uid

    def _set_up(self) -> None:
        self.runtime = Path("/run/user", str(self.uid))  # as systemd-logind would make it
        self.runtime.parent.mkdir(mode=0o755, exist_ok=True)
        self.runtime.mkdir(mode=0o700)
        self._undo.callback(shutil.rmtree, self.runtime, ignore_errors=True)
        self._undo.callback(self._remove_scratch)
        os.chown(self.runtime, self.uid, self.account.gid)
        if TUN.stat().st_mode & 0o666 != 0o666:  # as udev would make it
            self._undo.callback(TUN.chmod, TUN.stat().st_mode & 0o7777)
            TUN.chmod(0o666)
        # What it may call its own in containers: rows that useradd writes.
        self.subuids = [
            range(int(first), int(first) + int(count))
            for name, first, count in (line.split(":") for line in Path("/etc/subuid").read_text().splitlines())
            if name == self.name
        ]
        self._undo.callback(self.kill)
        assert self.subuids, "useradd gave the account no row in /etc/subuid"
        # crun refuses the two versions of cgroups side by side that containers and old virtual machines have.
        runtime = 'runtime = "runc"\n' if shutil.which("runc", path=SYSTEM_PATH) else ""
        # No systemd runs for this account.
        self.configure("containers.conf", f'[engine]\n{runtime}cgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        self.configure("storage.conf", '[storage]\ndriver = "overlay"\n')

    def configure(self, name: str, text: str) -> None:
        """Write a file of the account's settings for containers."""
        folder = self.home / ".config" / "containers"
        self.run(f"mkdir -p {folder}; cat > {folder}/{name}", input=text)

    @property
    def environment(self) -> dict[str, str]:
        """What a login has."""
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def run(
        self, command: str, *, input: str | None = None, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as this account, here and not through ssh; fails the test when the command does."""
        done = subprocess.run(
            ["sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=self.home,
            env=self.environment,
            user=self.uid,
            group=self.account.gid,
            extra_groups=[],
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),  # type: ignore[call-overload]
        )
        assert not check or done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def kit(self) -> str:
        """The words that run the kit under test as this account; empty where it may not read what that needs."""
        folders = [str(Path(kit.__file__).parent.parent), *(path for path in sys.path if "site-packages" in path)]
        for python in (sys.executable, "/usr/bin/python3"):
            words = f"PYTHONPATH={shlex.quote(os.pathsep.join(folders))} {shlex.quote(python)}"
            if self.run(f"{words} -c 'import kit.cli, jinja2, rich, packaging.version'", check=False).returncode == 0:
                return f"{words} -m kit"
        return ""

    def load(self, archive: Path) -> None:
        """Load the images of an archive that only root may read."""
        with archive.open("rb") as file:
            done = subprocess.run(
                ["podman", "load", "--quiet"],
                stdin=file,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
                cwd=self.home,
                env=self.environment,
                user=self.uid,
                group=self.account.gid,
                extra_groups=[],
            )
        assert done.returncode == 0, f"podman load: {done.stderr}"

    def load_base(self) -> None:
        """Have kit's Debian base, as `BASE`: a shell, and little else."""
        if self.run(f"podman image exists {BASE}", check=False).returncode != 0:
            self.load(base_archive(self.folder))

    def containers(self, *, everything: bool = True) -> list[str]:
        """The names of its containers, with `everything` also of those that do not run, asked of Podman itself."""
        return self.run(f"podman ps {'--all' if everything else ''} --format '{{{{.Names}}}}'").stdout.split()

    def remove_containers(self) -> None:
        self.run("podman rm --all --force --time 0 --volumes")

    def processes(self) -> list[int]:
        """What runs as this account, or as one of those in its containers."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                owner = folder.stat().st_uid
                if owner == self.uid or any(owner in numbers for numbers in self.subuids):
                    found.append(int(folder.name))
        return found

    def kill(self) -> None:
        """Kill everything that runs as this account."""
        deadline = time.monotonic() + 20
        while found := self.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes of {self.name} that cannot be killed: {found}"
            time.sleep(0.05)

    def _remove_scratch(self) -> None:
        for folder in ("/tmp", "/var/tmp", "/dev/shm"):
            for path in Path(folder).iterdir():
                with contextlib.suppress(OSError):
                    if path.lstat().st_uid != self.uid:
                        continue
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    def remove(self) -> None:
        """Kill its processes, with which the mounts of its images go, and remove its files."""
        self._undo.close()


class PodmanHost:
    """The account behind an sshd of its own. A client knows it as `machine`."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        with contextlib.ExitStack() as undo:
            self.account = PodmanAccount(folder)
            undo.callback(self.account.remove)
            (folder / "sshd").mkdir()
            self.sshd = Server(
                folder / "sshd",
                environment={
                    "XDG_RUNTIME_DIR": str(self.account.runtime),
                    "KIT_ENGINE_DIR": str(folder / "no-engine"),
                },
            )
            undo.callback(self.sshd.stop)
            self._undo = undo.pop_all()

    def ssh(self) -> str:
        """An ssh command for KIT_SSH."""
        return f"{self.sshd.ssh()} -l {self.account.name}"

    def run(self, command: str, *, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command as the account, here and not through ssh; fails the test when the command does."""
        return self.account.run(command, check=check, timeout_s=timeout_s)

    def remove(self) -> None:
        self._undo.close()


@contextlib.contextmanager
def running_host() -> Iterator[PodmanHost]:
    """A host with Podman and `BASE`; skips the test where there can be none."""
    skip_without()
    folder = Path(tempfile.mkdtemp(prefix="kit-podman-"))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        host = PodmanHost(folder)
        undo.callback(host.remove)
        host.account.load_base()
        yield host
