"""What the user's configuration of ssh lends to servers for people is lent to none by kit; names are never commands."""
# ruff: noqa: F401, F811 (fixtures are imported, and then arguments)

import dataclasses
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInputError
from kit.remote import ssh, sync
from tests.engine.ssh.test_sync import home, home_here, project
from tests.engine.ssh.test_tunnels import first, machine, opened, server, service, works
from tests.engine.sshd import needs_sshd

pytestmark = needs_sshd


@pytest.fixture
def generous(machine, tmp_path, monkeypatch):
    """The machine, in a configuration that lends it all there is, with an agent that has a key."""
    config = machine.folder / "ssh_config"
    config.write_text(
        f"Host machine\n  ForwardAgent yes\n  ForwardX11 yes\n  PermitLocalCommand yes\n"
        f"  LocalCommand touch {tmp_path}/local-command\n  RemoteCommand touch {tmp_path}/remote-command\n"
        f"  GSSAPIDelegateCredentials yes\n  RemoteForward {tmp_path}/remote-forward 127.0.0.1:9\n{config.read_text()}"
    )
    agent = tmp_path / "agent"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    monkeypatch.setenv("DISPLAY", ":7")
    yield tmp_path
    ssh.close_all()
    running.terminate()
    running.wait(timeout=10)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("local", "remote-"))] == []


def test_neither_agent_nor_screen_nor_commands(generous):
    connection = ssh.connect("machine")
    for _ in range(2):
        done = connection.run('echo "agent=${SSH_AUTH_SOCK:-} display=${DISPLAY:-}"')
        assert done.stdout == "agent= display=\n"
    assert connection.control_command("check")


@pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync")
def test_nor_while_files_go_over(generous, project, home):
    connection = ssh.connect("machine")
    connection = dataclasses.replace(connection, account=dataclasses.replace(connection.account, home=str(home)))
    assert sync.push(connection, project).sent_files == 3


def test_nor_in_a_tunnel(generous, service, first):
    seen = generous / "seen"
    tunnel = opened(service, first, life=f'echo "agent=$SSH_AUTH_SOCK display=$DISPLAY" | tee {seen}')
    assert works(tunnel)
    assert seen.read_text() == "agent= display=\n"
    # A forward of the configuration's own cannot be kept out of an ssh that has one of kit's.
    (generous / "remote-forward").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=touch ran", "-v", "", " ", "a b", "a\nb", "-", "--", "u@-oProxyCommand=x"]
)
def test_a_name_that_is_none(machine, name):
    for call in (ssh.connect, ssh.close, ssh.is_connected):
        with pytest.raises(BadInputError, match="is no machine"):
            call(name)


@given(
    st.text("abz09.@:/-_%[]~", max_size=8),
    st.sampled_from("'\"`$;&<>|(){}\n\t \x1b"),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_a_name_with_shell_text_is_none_either(before, odd, after):
    with pytest.raises(BadInputError, match="is no machine"):
        ssh.resolve_target(before + odd + after)


@pytest.mark.parametrize(
    "name", ["h", "u@h", "ssh://u@h:22", "DOMAIN\\u@h", "u@[::1]", "fe80::1%eth0", "a.b-c_d+e", "ü@h"]
)
def test_names_of_machines(name):
    assert ssh.resolve_target(name) == name
