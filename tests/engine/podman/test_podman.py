"""Podman on a host behind SSH, as kit drives it: an account without rights, a real sshd, real containers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from kit.engine import Engine, connect, stream
from kit.engine.remote import RemotePodman
from kit.errors import (
    BadInputError,
    EngineError,
    GpuUnavailableError,
    KitError,
    NetworkError,
    NoEngineError,
    NoSuchContainerError,
    PortTakenError,
)
from kit.remote import ssh
from kit.run.command import follow_job
from kit.run.containers import user_inside
from kit.spec.container import ContainerSpec, Mount
from kit.spec.gpu_grant import GpuGrant
from tests.engine.conftest import Kit
from tests.engine.notebook import get, split
from tests.engine.podman_host import BASE as PODMAN_BASE
from tests.engine.podman_host import SYSTEM_PATH, PodmanHost, base_archive
from tests.engine.remote.client import eventually
from tests.engine.sshd import needs_sshd

pytestmark = [pytest.mark.engine, needs_sshd]
BASE = "kit/base:bookworm"
LABELS = {"kit.image": "a-test", "kit.service": ""}


@pytest.fixture
def there(podman_host: PodmanHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine of the host, as kit finds it."""
    monkeypatch.delenv("KIT_ENGINE", raising=False)
    monkeypatch.setenv("KIT_SSH", podman_host.ssh())
    yield connect("machine")
    podman_host.account.remove_containers()
    ssh.close("machine")


@pytest.fixture
def name() -> str:
    return f"kit-test-{os.urandom(3).hex()}"


def spec(name: str, script: str, **more: object) -> ContainerSpec:
    made = ContainerSpec(image=BASE, name=name, command=("sh", "-c", script), user="0:0", labels=LABELS)
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def variables_left(host: PodmanHost) -> list[str]:
    """The files there that hold variables of a container to start."""
    return [
        str(path) for folder in (host.account.runtime, host.account.home) for path in folder.rglob("kit-variables*")
    ]


def until_it_prints(host: PodmanHost, name: str, text: str) -> None:
    eventually(lambda: text in host.run(f"podman logs {name}", check=False).stdout, f"{text!r} in the log of {name}")


def test_it_is_found_without_being_asked_for(there: Engine, podman_host: PodmanHost) -> None:
    assert isinstance(there, RemotePodman)
    assert there.kind == "podman"
    assert there.target == "machine"
    assert there.is_rootless
    assert there.info.is_rootless
    assert there.info.version == podman_host.run("podman version --format '{{.Client.Version}}'").stdout.strip()
    assert there.info.data_root.startswith(str(podman_host.account.home))
    assert there.info.cpus == os.cpu_count()
    assert not there.is_local


def test_from_start_to_removal(there: Engine, podman_host: PodmanHost, name: str) -> None:
    there.run_detached(spec(name, "trap 'exit 4' TERM; echo begun; while :; do sleep 0.1; done"))
    found = there.container(name)
    assert (found.status, found.image, found.labels["kit.image"]) == ("running", BASE, "a-test")
    said = json.loads(podman_host.run(f"podman container inspect {name}").stdout)[0]
    assert (said["State"]["Status"], said["ImageName"]) == ("running", PODMAN_BASE)
    assert {key: said["Config"]["Labels"][key] for key in LABELS} == LABELS
    assert [container.name for container in there.containers()] == [name]
    assert there.is_listed(name)
    assert not there.is_listed(name[:-1])
    until_it_prints(podman_host, name, "begun")
    assert there.logs(name, tail=1) == ["begun"]
    assert (
        there.call(["exec", name, "sh", "-c", 'echo $0 "$1"', "it's", 'a "b"\nc $HOME *']) == 'it\'s a "b"\nc $HOME *\n'
    )
    there.stop(name)
    found = there.container(name)
    assert (found.status, found.exit_code) == ("exited", 4)
    there.remove(name)
    assert podman_host.account.containers() == []
    with pytest.raises(NoSuchContainerError):
        there.container(name)
    there.remove(name, force=True)
    with pytest.raises(KitError):
        there.remove(name)


def test_files_belong_to_the_account(there: Engine, podman_host: PodmanHost, name: str) -> None:
    folder = podman_host.account.home / "it's a folder"
    podman_host.run(f"mkdir -p {shlex.quote(str(folder))}")
    assert user_inside(there) == "0:0"
    mount = Mount(source=str(folder), target="/workspace")
    made = spec(name, "echo x > /workspace/made; cat /etc/hostname > /dev/null", mounts=(mount,), remove=True)
    assert there.run_attached(made) == 0
    status = (folder / "made").stat()
    assert (status.st_uid, status.st_gid) == (podman_host.account.uid, podman_host.account.account.gid)


def test_variables_are_whole_and_seen_by_nobody(there: Engine, podman_host: PodmanHost, name: str) -> None:
    odd = "two\nlines 'single' \"double\" $HOME `id` \\ \t *"
    secret = os.urandom(8).hex()
    seen: set[bytes] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(file.read_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        there.run_detached(spec(name, 'printf %s "$ODD"; sleep 1', secret_environment={"ODD": odd, "TOKEN": secret}))
    finally:
        is_over.set()
        watcher.join()
    assert any(name.encode() in line and b"podman" in line for line in seen), "the start itself was seen"
    assert not any(secret.encode() in line for line in seen)
    assert variables_left(podman_host) == []
    until_it_prints(podman_host, name, "two")
    assert podman_host.run(f"podman logs {name}").stdout == odd
    assert there.container(name).environment["ODD"] == odd
    assert there.container(name).environment["TOKEN"] == secret


def test_variables_are_gone_when_nothing_starts(there: Engine, podman_host: PodmanHost, name: str) -> None:
    secrets = {"TOKEN": os.urandom(8).hex()}
    with pytest.raises(EngineError):
        there.run_detached(spec(name, "true", image="kit/none:latest", secret_environment=secrets))
    with pytest.raises(BadInputError, match="A-B"):
        there.run_detached(spec(name, "true", secret_environment={"A-B": "x\ny"}))
    assert variables_left(podman_host) == []
    assert podman_host.account.containers() == []


@pytest.mark.parametrize("code", [0, 1, 5, 125, 126, 127, 130, 255])
def test_exit_codes(there: Engine, name: str, code: int) -> None:
    assert there.run_attached(spec(name, f"exit {code}", remove=True)) == code
    assert not there.is_listed(name)
    if code == 5:
        there.run_detached(spec(name, f"sleep 0.5; exit {code}"))
        assert follow_job(there, name, lambda *_: None, lambda _: None) == code


def test_a_command_that_is_not_there(there: Engine, name: str) -> None:
    assert there.run_attached(dataclasses.replace(spec(name, ""), command=("/none",), remove=True)) == 127
    assert there.run_attached(dataclasses.replace(spec(name, ""), command=("/etc",), remove=True)) == 126
    assert not there.is_listed(name)


def test_input_reaches_a_command(there: Engine, podman_host: PodmanHost, name: str) -> None:
    there.run_detached(spec(name, "sleep 100"))
    assert there.call(["exec", "--interactive", name, "cat"], input="a\nb") == "a\nb"


def test_streams_apart_as_they_are_printed(there: Engine, name: str) -> None:
    seen: list[tuple[float, int, bytes]] = []
    script = "echo err >&2; for n in 1 2 3; do printf '\\r%s' $n; sleep 1; done; printf '\\377\\000end'"
    with there.started(spec(name, script)) as frames:
        for kind, data in frames:
            seen.append((time.monotonic(), kind, data))
    assert b"".join(data for _, kind, data in seen if kind == stream.STDOUT) == b"\r1\r2\r3\xff\x00end"
    assert b"".join(data for _, kind, data in seen if kind == stream.STDERR) == b"err\n"
    out = [moment for moment, kind, _ in seen if kind == stream.STDOUT]
    assert out[-1] - out[0] > 1.5, "each came when it was printed"
    with there.log(name, follow=False) as frames:
        assert b"".join(data for kind, data in frames if kind == stream.STDOUT) == b"\r1\r2\r3\xff\x00end"


def test_ten_megabytes(there: Engine, name: str) -> None:
    size = 0
    # Lines of 100 000 characters: longer than any buffer on the way.
    script = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); head -c 99999 /dev/zero | tr '\\0' x; echo; done"
    with there.started(spec(name, script)) as frames:
        for _, data in frames:
            assert data.replace(b"\n", b"").strip(b"x") == b""
            size += len(data)
    assert size == 10_000_000


def test_reading_a_log_ends_with_the_reader(there: Engine, podman_host: PodmanHost, name: str) -> None:
    """Nothing reads on over there when nobody reads here: neither a silent container's log, nor a busy one's."""
    for script in ("echo begun; sleep 1000", "while :; do echo line; sleep 0.01; done"):
        with there.started(spec(name, script)) as frames:
            assert next(frames)[1].startswith((b"begun", b"line"))
            assert " logs " in podman_host.run("ps -u $(id -u) -o args=").stdout.replace("\0", " ")
        eventually(
            lambda: f"logs --follow {name}" not in podman_host.run("ps -u $(id -u) -o args=").stdout,
            "no `podman logs` there",
            timeout_s=20,
        )
        there.remove(name, force=True)


def test_reading_goes_on_after_the_connection_was_lost(
    there: Engine, podman_host: PodmanHost, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo line $n; echo err $n >&2; sleep 0.1; done; exit 7"
    there.run_detached(spec(name, script))
    text, said = {1: b"", 2: b""}, list[str]()

    def write(kind: int, data: bytes) -> None:
        text[kind] += data

    def cut() -> None:
        while b"line 5\n" not in text[1]:
            time.sleep(0.02)
        podman_host.sshd.kill_sessions()

    cutter = threading.Thread(target=cut)
    cutter.start()
    code = follow_job(there, name, write, said.append)
    cutter.join()
    assert code == 7
    assert text[1].decode() == "".join(f"line {n}\n" for n in range(1, 61))
    assert text[2].decode() == "".join(f"err {n}\n" for n in range(1, 61))
    assert any("is lost" in line for line in said)


def test_a_port_that_is_taken(there: Engine, podman_host: PodmanHost, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder, pytest.raises(PortTakenError):
        there.run_detached(spec(name, "sleep 100", ports=((holder.getsockname()[1], 80),)))
    assert podman_host.account.containers() == []


def test_a_port_leads_in_from_the_loopback_alone(there: Engine, podman_host: PodmanHost, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    there.run_detached(spec(name, "sleep 100", ports=((port, 8888),)))
    assert there.container(name).ports == {8888: port}
    listening = podman_host.run(f"cat /proc/net/tcp /proc/net/tcp6 | grep -i ':{port:04X} 0[0:]*:0000 0A'").stdout
    assert [line.split()[1] for line in listening.splitlines()] == [f"0100007F:{port:04X}"]


def test_no_such_image(there: Engine, podman_host: PodmanHost, name: str) -> None:
    assert there.image_labels("kit/none:latest") is None
    assert there.image_labels(BASE)
    assert BASE in there.tags()
    with pytest.raises(EngineError) as caught:
        there.run_detached(spec(name, "true", image="kit/none:latest"))
    assert "kit/none" in " ".join((caught.value.message, *caught.value.details))
    assert podman_host.account.containers() == []


def test_the_program_is_gone(there: Engine, podman_host: PodmanHost) -> None:
    assert isinstance(there, RemotePodman)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.engine.remote.PROGRAM", "podman-none")
        with pytest.raises(NoEngineError) as caught:
            there.call(["ps"])
    assert "machine" in caught.value.message
    assert "docker" not in f"{caught.value.message} {caught.value.hint}".lower()


def test_the_connection_is_no_failure_of_the_engine(there: Engine, podman_host: PodmanHost, name: str) -> None:
    podman_host.sshd.kill()
    try:
        with pytest.raises(NetworkError) as caught:
            there.call(["ps"])
        assert "machine" in caught.value.message
        for ask in (there.containers, lambda: there.container(name), lambda: there.is_listed(name)):
            with pytest.raises(NetworkError):
                ask()
        with pytest.raises(NetworkError):
            there.run_detached(spec(name, "true", secret_environment={"A": "b"}))
    finally:
        podman_host.sshd.start()


def test_an_exit_code_is_told_from_a_lost_connection(there: Engine, name: str) -> None:
    """ssh's own is 255, and so may be that of what runs over there."""
    there.run_detached(spec(name, "sleep 100"))
    assert there.attach(["exec", name, "sh", "-c", "exit 255"]) == 255
    with pytest.raises(EngineError):
        there.call(["exec", name, "sh", "-c", "echo said >&2; exit 255"])
    assert there.container(name).status == "running"


# GPUs

SPECIFICATION = Path("/etc/cdi/kit-test-podman.json")
LOOK = "ls /dev | grep kit-test | tr '\\n' ' '; echo ${KIT_TEST_CDI:-none}"


@pytest.fixture
def cdi(gpus_alone: None) -> Iterator[None]:
    """Two GPUs that are other names of /dev/null and /dev/zero, as nvidia-ctk writes them."""
    if any(SPECIFICATION.parent.glob("nvidia*")):
        pytest.skip("this machine has a CDI specification of its own")
    nodes = {name: {"path": f"/dev/kit-test{name}"} for name in ("0", "1")}
    # Without root's rights a runtime does not make a device, it mounts the one of the same path.
    for node, number in zip(nodes.values(), (3, 5), strict=True):
        os.mknod(node["path"], 0o666 | stat.S_IFCHR, os.makedev(1, number))
        Path(node["path"]).chmod(0o666)
    devices = [{"name": name, "containerEdits": {"deviceNodes": [node]}} for name, node in nodes.items()]
    devices.append({"name": "all", "containerEdits": {"deviceNodes": list(nodes.values())}})
    was_there = SPECIFICATION.parent.is_dir()
    SPECIFICATION.parent.mkdir(mode=0o755, exist_ok=True)
    SPECIFICATION.write_text(
        json.dumps(
            {
                "cdiVersion": "0.5.0",
                "kind": "nvidia.com/gpu",
                "containerEdits": {"env": ["KIT_TEST_CDI=injected"]},
                "devices": devices,
            }
        )
    )
    SPECIFICATION.chmod(0o644)
    yield
    SPECIFICATION.unlink()
    for node in nodes.values():
        Path(node["path"]).unlink()
    if not was_there:
        SPECIFICATION.parent.rmdir()


def test_gpus_by_cdi(
    there: Engine, podman_host: PodmanHost, name: str, cdi: None, capfd: pytest.CaptureFixture[str]
) -> None:
    made = spec(name, LOOK, gpus=GpuGrant(form="cdi", devices=("nvidia.com/gpu=1",)), remove=True)
    assert there.run_attached(made) == 0
    assert capfd.readouterr().out == "kit-test1 injected\n"


def test_a_gpu_that_is_not_there(there: Engine, podman_host: PodmanHost, name: str, cdi: None) -> None:
    for device in ("nvidia.com/gpu=7", "kit.test/none=0"):
        with pytest.raises(GpuUnavailableError) as caught:
            there.run_detached(spec(name, "true", gpus=GpuGrant(form="cdi", devices=(device,))))
        assert device in " ".join(caught.value.details)
        assert "nvidia-ctk cdi" in caught.value.hint
        assert "docker" not in caught.value.hint
    assert podman_host.account.containers() == []


# Which engine a host has


@pytest.fixture
def login(podman_host: PodmanHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Gives what the host's logins run before the command, as a profile would."""
    monkeypatch.delenv("KIT_ENGINE", raising=False)
    monkeypatch.setenv("KIT_SSH", podman_host.ssh())
    keys = podman_host.sshd.folder / "authorized_keys"
    before = keys.read_text()

    def set_up(words: str) -> None:
        ssh.close("machine")
        keys.write_text(f'command="{words}; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"" {before}')

    ssh.close("machine")
    yield set_up
    keys.write_text(before)
    ssh.close("machine")


def test_podman_under_the_name_of_docker(podman_host: PodmanHost, login: Callable[[str], None]) -> None:
    """What the package podman-docker installs: a script, and a link to the socket of Podman's Docker interface."""
    programs, runtime = podman_host.account.home / "programs", podman_host.account.runtime
    docker = f"{programs}/docker"
    podman_host.run(f"mkdir -p {programs} {runtime}/podman; ln -s {runtime}/podman/podman.sock {runtime}/docker.sock")
    podman_host.run(f"printf '#!/bin/sh\\nexec /usr/bin/podman \"$@\"\\n' > {docker}; chmod +x {docker}")
    listen = f"podman system service --time=0 unix://{runtime}/podman/podman.sock >/dev/null 2>&1 & echo $!"
    pid = podman_host.run(listen).stdout.strip()
    try:
        eventually(lambda: (runtime / "docker.sock").exists(), "Podman's socket")
        for address in ("", f" DOCKER_HOST=unix://{runtime}/docker.sock"):
            login(f"export PATH={programs}:$PATH{address}")
            engine = connect("machine")
            assert engine.kind == "podman"
            assert engine.connection is not None
            assert engine.connection.account.sockets == ()
            assert not engine.connection.account.has_docker
            assert engine.containers() == []
    finally:
        podman_host.run(f"kill {pid}; rm -rf {programs} {runtime}/docker.sock {runtime}/podman", check=False)


@pytest.fixture
def docker_socket(podman_host: PodmanHost, login: Callable[[str], None]) -> Iterator[Path]:
    """A socket where kit's private engine would have its own, that nobody answers at and only root may use."""
    file = podman_host.account.folder / "no-engine/run/docker.sock"
    file.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(file))
        file.chmod(0o600)
        yield file
    shutil.rmtree(file.parent.parent)


def test_a_docker_that_the_account_may_not_use(docker_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect("machine")
    assert engine.kind == "podman"
    assert engine.connection is not None
    assert str(docker_socket) in engine.connection.account.denied
    monkeypatch.setenv("KIT_ENGINE", "system")
    with pytest.raises(NoEngineError, match="no right to use the container engine of machine"):
        connect("machine")


def test_a_docker_that_is_down_is_not_replaced(docker_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_socket.chmod(0o666)
    with pytest.raises(NoEngineError) as caught:
        connect("machine")
    assert caught.value.details == (f"{docker_socket}: no answer",)
    monkeypatch.setenv("KIT_ENGINE", "podman")
    assert connect("machine").kind == "podman"


def test_which_engine_is_asked_for(login: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for choice in ("system", "private"):
        monkeypatch.setenv("KIT_ENGINE", choice)
        with pytest.raises(NoEngineError):
            connect("machine")
    monkeypatch.setenv("KIT_ENGINE", "podman")
    assert connect("machine").kind == "podman"


@pytest.mark.parametrize("shell", ["fish", "tcsh", "csh"])
def test_a_login_shell_that_is_not_posix(podman_host: PodmanHost, login: Callable[[str], None], shell: str) -> None:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"no {shell} on this machine")
    subprocess.run(["usermod", "--shell", program, podman_host.account.name], check=True)
    try:
        engine = connect("machine")
        text = 'it\'s "$HOME"; `id` \\ !x {a,b} *\n'
        made = spec("kit-test-shell", 'printf %s "$1$TOKEN"', secret_environment={"TOKEN": text}, remove=True)
        printed = engine.call(
            ["run", "--rm", *engine.arguments(dataclasses.replace(made, command=(*made.command, "sh", text)))],
            environment={"TOKEN": text},
        )
        assert printed == text + text
    finally:
        subprocess.run(["usermod", "--shell", "/bin/sh", podman_host.account.name], check=True)
        podman_host.account.remove_containers()


# Podman on this machine


def test_kit_of_the_account_itself(podman_host: PodmanHost, podman_tf_cpu: str) -> None:
    kit = podman_host.account.kit()
    if not kit:
        pytest.skip("the account may not read the Python that the tests run with, nor the system's fits")
    podman_host.run("mkdir -p 'my work'")
    into = "cd 'my work' && KIT_ENGINE=podman "
    done = podman_host.run(f"{into}{kit} run {podman_tf_cpu} -- sh -c 'id -u; echo x > made; exit 5'", check=False)
    assert (done.returncode, done.stdout) == (5, "0\n"), done.stderr
    assert (podman_host.account.home / "my work/made").stat().st_uid == podman_host.account.uid
    assert podman_host.account.containers() == []
    # A job, and its log from the first line to the last.
    script = "n=0; while [ $n -lt 20 ]; do n=$((n+1)); echo line $n; sleep 0.05; done; exit 7"
    podman_host.run(f"{into}{kit} run --detach {podman_tf_cpu} -- sh -c '{script}'")
    (name,) = podman_host.account.containers()
    done = podman_host.run(f"{into}{kit} logs -f {name}", check=False)
    assert (done.returncode, done.stdout) == (7, "".join(f"line {n}\n" for n in range(1, 21))), done.stderr
    rows = json.loads(podman_host.run(f"{into}{kit} --json ps --all").stdout)
    assert [(row["name"], row["image"], row["exit_code"]) for row in rows] == [(name, podman_tf_cpu, 7)]
    podman_host.run(f"{into}{kit} rm {name}")
    # A service, and its URL.
    url = json.loads(podman_host.run(f"{into}{kit} --json run {podman_tf_cpu} jupyter").stdout)["url"]
    address, token = split(url)
    assert get(f"{address}/api/status", token=token)[0] == 200
    assert get(f"{address}/api/status", token="0" * len(token))[0] == 403
    podman_host.run(f"{into}{kit} rm --all --force")
    assert podman_host.account.containers() == []


def test_podman_of_root(tmp_path: Path, kit: Kit, podman_host: PodmanHost, docker: DockerClient, tf_cpu: str) -> None:
    """As KIT_ENGINE chooses it beside a Docker; with storage and settings that are the test's alone."""
    (tmp_path / "containers.conf").write_text(
        # With the network of the machine: it would else write rules of its own into the machine's firewall.
        '[containers]\nnetns = "host"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        + ('runtime = "runc"\n' if shutil.which("runc", path=SYSTEM_PATH) else "")
    )
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\n'
    )
    environment = {
        **os.environ,
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
        "KIT_ENGINE": "podman",
    }
    try:
        with base_archive(tmp_path).open("rb") as archive:
            subprocess.run(["podman", "load", "--quiet"], stdin=archive, env=environment, check=True, timeout=300)
        # The base under the name and with the labels of the small image: for a command without Python it is as good.
        labels = docker.images.get("kit/tf-cpu:latest").labels.items()
        subprocess.run(
            [
                *("podman", "build", "--quiet", "--tag=docker.io/kit/tf-cpu:latest", "--file=-", str(tmp_path)),
                *(f"--label={name}={value}" for name, value in labels),
            ],
            input=f"FROM {PODMAN_BASE}\n",
            text=True,
            env=environment,
            check=True,
            timeout=60,
        )
        noted = "from kit.engine import connect; connect().note_made('kit/tf-cpu:latest')"
        subprocess.run([sys.executable, "-c", noted], env=environment, check=True, timeout=60)
        folder = tmp_path / "work"
        folder.mkdir()
        script = ("run", "-C", str(folder), tf_cpu, "--", "sh", "-c", "echo x > made; id -u; exit 5")
        done = kit(*script, code=5, env=environment)
        assert "built" not in done.stderr
        assert done.stdout == "0\n", "whoever called"
        assert (folder / "made").read_text() == "x\n"
        assert json.loads(kit("--json", "ps", "--all", env=environment).stdout) == []
    finally:
        subprocess.run(["podman", "rm", "--all", "--force", "--time=0"], env=environment, check=False, timeout=60)
        subprocess.run(["umount", "--lazy", str(tmp_path / "root/overlay")], check=False, capture_output=True)
