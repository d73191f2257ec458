"""What goes wrong with a server, and what kit says then: keys, rights, disks, killed clients, a restarted engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import private_engine
from kit.private_engine import daemon
from tests.engine.notebook import execute
from tests.engine.remote.client import Client, eventually
from tests.engine.remote.conftest import Host, Lab, mount_small

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("host", "what", "hint"),
    [
        ("wrong-key", "does not let you in", "ssh-copy-id"),
        ("unknown-key", "host key is not known", "ssh unknown-key"),
        ("changed-key", "not the one known here", "ssh-keygen -R"),
        ("refusing", "refuses the connection", "sshd"),
        ("nosuch.invalid", "no machine of that name", "~/.ssh/config"),
    ],
)
def test_why_a_server_cannot_be_reached(client: Client, project: Path, host: str, what: str, hint: str) -> None:
    known = client.folder / "known_hosts"
    before = known.read_bytes()
    for command in (("ps",), ("run", "tf-cpu", "jupyter")):
        done = client.kit("--host", host, *command, code=19, cwd=project)
        assert host in done.stderr
        assert what in done.stderr
        assert hint in done.stderr
        assert done.stdout == ""
    assert known.read_bytes() == before, "no host key is taken without a question"
    assert client.json("tunnel", "ls") == []
    assert client.is_quiet()


def test_host_keys_are_checked_by_everything_that_connects(client: Client) -> None:
    """Neither kit's own options nor its tunnels' switch off what ssh's configuration says."""
    client.kit("--host", "server", "ps")
    code = (
        "from kit.remote import ssh; print(ssh.own_command('unknown-key')); "
        "print(ssh.connect('server').command('true'))"
    )
    said = client.python(code)
    for option in ("StrictHostKeyChecking", "UserKnownHostsFile", "NoHostAuthentication"):
        assert option not in said
    words = client.python(
        "import json; from kit.remote import ssh; print(json.dumps(ssh.own_command('unknown-key', '-N')))"
    )
    done = client.run(*json.loads(words))
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_no_right_to_use_the_engine(lab: Lab, client: Client, project: Path) -> None:
    for command in (("ps",), ("run", "tf-cpu", "jupyter"), ("run", "tf-cpu", "--", "true")):
        done = client.kit("--host", "carol", *command, code=23, cwd=project)
        assert lab.carol.name in done.stderr
        assert "no right" in done.stderr
        assert "kit --host carol doctor" in done.stderr
    assert not list(lab.carol.home.rglob("*.py")), "nothing was sent for nothing"


def test_full_disk_on_the_server(lab: Lab, client: Client, project: Path) -> None:
    (project / "train.py").write_text("print('trained')\n")
    (project / "data.bin").write_bytes(b"x" * 20_000_000)
    command = ("--quiet", "--host", "bob", "run", "tf-cpu", "--", "python", "train.py")
    with mount_small(lab.bob.home, "8m"):
        os.chown(lab.bob.home, lab.bob.uid, lab.bob.gid)
        done = client.kit(*command, code=14, cwd=project)
        assert "no space left" in done.stderr.lower()
        assert "bob" in done.stderr
        assert done.stdout == ""
        assert lab.containers(lab.bob) == []
        assert lab.listed("bob", lab.bob) == []
    # With room again the same command works.
    assert client.kit(*command, cwd=project).stdout == "trained\n"


def test_killed_while_a_notebook_starts(host: Host, client: Client, project: Path) -> None:
    """`kill -9` at any moment: nothing of the client's goes on but what the next command finds and can close."""
    # With Podman other code makes the container, and no other code the connection before it and the tunnel after it.
    for seconds in (1.2, 3.0) if host.podman else (0.6, 1.2, 2.0, 3.0, 4.5):
        job = client.start("--json", "--host", host.name, "run", "tf-cpu", "jupyter", cwd=project)
        time.sleep(seconds)
        job.kill()
        eventually(lambda: not client.leftovers(), f"no orphan of a kit killed after {seconds} s", timeout_s=30)

        def all_are_known() -> bool:
            supervisors = [words for words in client.link.processes().values() if "-m kit.remote.tunnels" in words]
            return len(supervisors) == len(client.json("tunnel", "ls"))

        # A supervisor that was just started has no file yet, and ends when it sees that its opener is gone.
        eventually(all_are_known, "what stays is what the next command knows of", timeout_s=20)
    assert {row["name"] for row in host.listed("--all")} == set(host.containers()), "the next command sees them all"
    started = client.json("--host", host.name, "run", "tf-cpu", "jupyter", cwd=project)
    assert client.link.inside(execute, started["url"], "print(6 * 7)") == "42\n"
    client.kit("--host", host.name, "rm", "--all", "--force")
    assert host.containers() == []
    assert client.json("tunnel", "ls") == []


def restart(lab: Lab) -> None:
    """Stop the engine and start it as it was."""
    settings = json.loads(private_engine.engine_paths().daemon_file.read_text())
    added = [name for name in settings["insecure-registries"] if name not in daemon.INSECURE_REGISTRIES]
    daemon.down()
    daemon.up(registry_mirrors=settings["registry-mirrors"], insecure_registries=added)
    lab.accounts.allow()


@pytest.fixture
def may_restart(lab: Lab) -> Iterator[None]:
    """Skips where others would lose by it; the engine is up at the end, whatever happened."""
    if not private_engine.is_up() or lab.engine.socket_path != private_engine.socket_path():
        pytest.skip("the engine in use is not kit's private one, which a test may restart")
    own = {name for account in lab.accounts.made for name in lab.containers(account)}
    running = {container.name for container in lab.docker.containers.list(ignore_removed=True)}
    if others := running - own:
        pytest.skip(f"others' containers run on this engine: {', '.join(sorted(others))}")
    yield
    if daemon.up():
        lab.accounts.allow()


@pytest.mark.alone
def test_engine_restarted_while_a_notebook_runs(lab: Lab, client: Client, project: Path, may_restart: None) -> None:
    arguments = ("--host", "server", "run", "--restart", "unless-stopped", "tf-cpu", "jupyter")
    started = client.json(*arguments, cwd=project)
    url, name = started["url"], started["name"]
    assert client.link.inside(execute, url, "open('kept', 'w').write('x'); print(1)") == "1\n"
    restart(lab)
    eventually(
        lambda: [row["status"] for row in lab.listed("server", lab.alice)] == ["running"],
        "the notebook runs again",
        timeout_s=60,
    )

    def works() -> bool:
        try:
            return client.link.inside(execute, url, "print(open('kept').read())") == "x\n"
        except (OSError, AssertionError):
            return False

    eventually(works, "the same URL, with a new kernel", timeout_s=75)
    assert client.kit("--host", "server", "url", name).stdout.strip() == url
    client.kit("--host", "server", "stop", name)
    assert client.json("tunnel", "ls") == []
