"""The first commands of an account with sudo that is not root, in a checkout of its own.

The engine is the machine's private one, which root started before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import paths, private_engine, procs
from kit.engine import connect
from kit.image import base
from tests.engine.remote.accounts import Account, add_account, remove_account

# The account gets the engine's socket, which no other test may see changed.
pytestmark = [
    pytest.mark.engine,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes an account, which needs root"),
    pytest.mark.skipif(not shutil.which("sudo"), reason="needs sudo"),
]
SUDOERS = Path("/etc/sudoers.d")
# Of whoever runs the tests the account has what leads to the network, and nothing else.
OWN = ("HOME", "USER", "LOGNAME", "MAIL", "SHELL", "PATH", "PWD", "OLDPWD", "TMPDIR")
FOREIGN = ("KIT_", "XDG_", "PYTEST_", "COVERAGE", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS", "DOCKER_")


class Sudoer:
    """An account that may do anything by sudo without a password, and its checkout."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.folder = account.home / "kit"
        root = paths.root_dir()
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target, follow_symlinks=False)
        subprocess.run(["chown", "-R", f"{account.uid}:{account.gid}", str(self.folder)], check=True)

    def run(self, command: str, *, code: int = 0, timeout_s: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in the checkout as the account, with its groups and nothing of root's."""
        kept = {k: v for k, v in os.environ.items() if k not in OWN and not k.startswith(FOREIGN)}
        own = {"HOME": str(self.account.home), "USER": self.account.name, "LOGNAME": self.account.name}
        identity = [f"--reuid={self.account.uid}", f"--regid={self.account.gid}", "--init-groups"]
        done = subprocess.run(
            ["setpriv", *identity, "bash", "-c", command],
            cwd=self.folder,
            env={**kept, **own, "PATH": "/usr/local/bin:/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def end_processes(uid: int) -> None:
    def running() -> list[int]:
        return [pid for pid in procs.numbers() if (folder := Path(f"/proc/{pid}")).exists() and owner(folder) == uid]

    procs.kill(running, within_s=20)


def owner(folder: Path) -> int | None:
    try:
        return folder.stat().st_uid
    except OSError:
        return None


@pytest.fixture(scope="module")
def sudoer() -> Iterator[Sudoer]:
    socket = private_engine.socket_path()
    if not private_engine.is_up() or socket.stat().st_uid != 0:
        pytest.skip("needs the private engine, started by root")
    folder = Path(tempfile.mkdtemp(prefix="kit-sudoer-"))
    folder.chmod(0o755)
    account = add_account(f"kit-sudoer-{os.urandom(3).hex()}", folder / "home")
    rule = SUDOERS / account.name
    try:
        rule.write_text(f"{account.name} ALL=(ALL:ALL) NOPASSWD: ALL\n")
        rule.chmod(0o440)
        made = Sudoer(account)
        made.run("make setup")
        yield made
    finally:
        rule.unlink(missing_ok=True)
        os.chown(socket, 0, -1)
        end_processes(account.uid)
        remove_account(account)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def roots_engine(sudoer: Sudoer) -> Iterator[Path]:
    """The engine as root started it, whatever a test before did."""
    socket = private_engine.socket_path()
    os.chown(socket, 0, -1)
    yield socket
    os.chown(socket, 0, -1)


def test_an_engine_of_roots_is_seen_as_that(sudoer: Sudoer, roots_engine: Path) -> None:
    for command in ("ps", "engine status", "run tf-cpu true"):
        said = sudoer.run(f".venv/bin/kit {command}", code=23).stderr
        assert "kit's private engine is up, and you have no right to use it" in said
        assert f"`sudo chown $USER {roots_engine}` gives it to you" in said
        assert "engine up" not in said
    found = json.loads(sudoer.run(".venv/bin/kit doctor --json", code=1).stdout)
    (finding,) = [found for found in found["findings"] if found["check"] == "engine-permission"]
    assert "root started it" in finding["fix"]
    assert "usermod" not in finding["fix"], "there is no group that may use it"
    hint = sudoer.run(".venv/bin/kit ps", code=23).stderr.partition("`sudo -E ")[2].partition(" …`")[0]
    assert "kit" in sudoer.run(f"sudo -E {hint} --version").stdout, "the command in the hint is there, for root too"


def test_make_run(sudoer: Sudoer, roots_engine: Path, tf_cpu: str) -> None:
    """No question, no more of root than to get at the engine; and the last line works when it is pasted."""
    done = sudoer.run("make run IMAGE=tf-cpu")
    assert done.stdout.strip().splitlines()[-1].startswith("http://127.0.0.1:")
    assert roots_engine.stat().st_uid == sudoer.account.uid
    try:
        listed = sudoer.run(done.stderr.strip().splitlines()[-1]).stdout
        assert "jupyter" in listed
    finally:
        for row in json.loads(sudoer.run(".venv/bin/kit --json ps").stdout):
            if row["user"] == sudoer.account.name:
                sudoer.run(f".venv/bin/kit rm --force {row['name']}")
    left = sudoer.run("find ~ -not -user $USER").stdout
    assert left == "", "nothing of root's is in the account's home"


def test_a_base_takes_the_right_to_use_an_engine_and_nothing_else(sudoer: Sudoer, roots_engine: Path) -> None:
    known = base.ensure("bookworm", connect())
    os.chown(roots_engine, sudoer.account.uid, -1)
    (SUDOERS / sudoer.account.name).rename(outside := sudoer.account.home.parent / "rule")
    try:
        done = sudoer.run(".venv/bin/kit base make bookworm --force --json")
    finally:
        shutil.move(outside, SUDOERS / sudoer.account.name)
    assert json.loads(done.stdout)["content_hash"] == known.content_hash
    assert base.find("bookworm", connect()) is not None


def test_the_engines_tests_run_for_an_account_with_sudo(sudoer: Sudoer, roots_engine: Path) -> None:
    said = sudoer.run("make test-engine GROUP=images PYTEST_ARGS='-k base_is_made_once'").stdout
    assert "1 passed" in said
