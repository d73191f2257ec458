"""What of its machine a container has, on a real engine: groups, places of mounts, proxies, limits, odd folders."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from kit import mounts
from kit.engine import connect
from kit.run.prepare import open_files
from kit.spec.container import NOFILE
from tests.engine.conftest import KIT, Kit
from tests.engine.notebook import get
from tests.free_ports import free_ports

pytestmark = pytest.mark.engine
USER = "54331"


def test_a_folder_of_a_group_is_open_to_who_is_in_it(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    shared = workspace / "shared"
    shared.mkdir()
    (shared / "file").write_text("theirs")
    os.chown(shared, 1, 54321)
    os.chown(shared / "file", 1, 54321)
    (shared / "file").chmod(0o640)
    shared.chmod(0o2770)
    # Without a capability root inside is bound by the mode, as any user is.
    words = ("-q", "run", "-C", str(workspace), "--user", "0:0", tf_cpu, "sh", "-c")
    done = kit(*words, "cat shared/file && touch shared/new && echo && id -G && id -Gn", extra_groups=[54321])
    said, numbers, names = done.stdout.splitlines()
    assert said == "theirs"
    assert "54321" in numbers.split()
    assert "group" in names.split()
    assert (shared / "new").stat().st_gid == 54321
    assert kit(*words, "cat shared/file", code=1, extra_groups=[]).stdout == ""


def test_places_of_mounts_are_the_callers(kit: Kit, tf_cpu: str, workspace: Path, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "gitconfig"
    data.mkdir()
    file.write_text("[user]\n")
    own = ("-q", "run", "-C", str(workspace), "--user", USER)
    options = ["--mount", f"{data}:/workspace/in/data:ro", "--mount", f"{file}:/home/kit/.gitconfig:ro"]
    options += ["--mount", f"{data}:/home/kit/.config/deep/data"]
    done = kit(*own, *options, tf_cpu, "sh", "-c", "cat ~/.gitconfig; ls -d in/data")
    assert done.stdout == "[user]\nin/data\n"
    assert {p.stat().st_uid for p in (workspace / "in", workspace / "in/data")} == {int(USER)}
    # In the next container, without the mounts, they are its user's: to change and to remove.
    kit(*own, tf_cpu, "sh", "-c", "echo x > ~/.gitconfig && rm -r ~/.gitconfig ~/.config/deep in")


def test_a_mount_takes_the_place_of_the_home(kit: Kit, tf_cpu: str, workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, int(USER), int(USER))
    words = ("--user", USER, "--mount", f"{home}:/home/kit", tf_cpu, "sh", "-c", "touch ~/made ~/.local/made")
    kit("-q", "run", "-C", str(workspace), *words)
    assert sorted(p.name for p in home.iterdir()) == [".local", "made"]
    assert {p.stat().st_uid for p in home.iterdir()} == {int(USER)}


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a:b", "a b$HOME `x`", "家 é", "-rf", "a'b\\c", "a,source=x"])
def test_any_name_of_a_folder(kit: Kit, tf_cpu: str, workspace: Path, name: str) -> None:
    folder = workspace / name
    folder.mkdir()
    (folder / "file").write_text("here")
    done = kit("-q", "run", "-C", str(folder), tf_cpu, "sh", "-c", "cat file; touch made; touch ~/kept")
    assert done.stdout == "here"
    assert (folder / "made").exists()


@contextlib.contextmanager
def proxy(address: str) -> Iterator[tuple[int, list[str]]]:
    """A proxy's port, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"through")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ASK = "import urllib.request as r; print(r.urlopen('http://index.example/x', timeout=20).read().decode())"


def test_a_proxy_of_this_machine_is_reached_where_it_listens(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    with proxy("0.0.0.0") as (port, asked):
        environment = {**os.environ, "http_proxy": f"http://127.0.0.1:{port}", "no_proxy": ""}
        done = kit("run", "-C", str(workspace), tf_cpu, "python", "-c", ASK, env=environment)
    assert done.stdout == "through\n"
    assert asked == ["http://index.example/x"]
    assert "left out" not in done.stderr


def test_one_on_the_loopback_alone_is_left_out_and_said(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    with proxy("127.0.0.1") as (port, asked):
        environment = {**os.environ, "http_proxy": f"http://127.0.0.1:{port}", "no_proxy": ""}
        done = kit("run", "-C", str(workspace), tf_cpu, "env", env=environment)
        on_host = ("--network", "host", tf_cpu, "python", "-c", ASK)
        reached = kit("run", "-C", str(workspace), *on_host, env=environment)
    assert "http_proxy" not in done.stdout
    assert f"127.0.0.1:{port} is on this machine's loopback" in done.stderr
    assert reached.stdout == "through\n"
    assert "warning: --network host" in reached.stderr
    assert asked == ["http://index.example/x"]


def test_mirrors_and_the_zone_are_known_inside(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    own = {"PIP_INDEX_URL": "https://mirror.example/simple", "UV_DEFAULT_INDEX": "", "UV_INDEX_URL": ""}
    own |= {"HF_ENDPOINT": "https://hub.example", "TZ": "Asia/Shanghai", "PIP_TRUSTED_HOST": "mirror.example"}
    script = 'pip config list --user; pip config get global.index-url; echo "$HF_ENDPOINT $TZ"; pip config debug'
    done = kit("-q", "run", "-C", str(workspace), tf_cpu, "sh", "-c", script, env={**os.environ, **own}, code=0)
    assert "https://hub.example Asia/Shanghai" in done.stdout
    assert "PIP_INDEX_URL='https://mirror.example/simple'" in done.stdout
    assert "PIP_TRUSTED_HOST='mirror.example'" in done.stdout


def test_limits_of_processes(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -l; ulimit -s; df --output=size -B1 /dev/shm | tail -1"
    may_raise = open_files(connect()) == NOFILE[1]
    memlock = "unlimited" if may_raise else "65536"  # in bytes, as the stack; `ulimit` shows both in KiB
    asked = ("--ulimit", f"memlock={memlock}", "--ulimit", "stack=4194304", "--shm-size", "1g", "--cpus", "0.5")
    done = kit("-q", "run", "-C", str(workspace), *asked, tf_cpu, "bash", "-c", script)
    soft, hard, *others = done.stdout.split()
    assert (int(soft), int(hard)) == tuple(min(limit, open_files(connect())) for limit in NOFILE)
    assert others == ["unlimited" if may_raise else "64", "4096", str(2**30)]


def test_a_further_port_and_a_name(kit: Kit, tf_cpu: str, workspace: Path, docker: DockerClient) -> None:
    port, name = free_ports(1), f"own-{uuid.uuid4().hex[:8]}"
    (workspace / "page").write_text("seen")
    server = ("python", "-m", "http.server", "80")
    try:
        kit("run", "-d", "--name", name, "-p", f"{port}:80", "-C", str(workspace), tf_cpu, *server, code=0)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                assert get(f"http://127.0.0.1:{port}/page")[0] == 200
                break
            time.sleep(0.2)
        else:
            pytest.fail("nothing answers")
        assert name in kit("ps").stdout
        refused = kit("run", "--name", name, "-C", str(workspace), tf_cpu, "true", code=2)
        assert "there is a container of that name" in refused.stderr
        assert docker.containers.get(name).status == "running"
        taken = kit("run", "-p", str(port), "-C", str(workspace), tf_cpu, "true", code=16)
        assert "--publish" in taken.stderr
    finally:
        kit("rm", "--force", name)


def test_a_path_and_a_token_of_ones_own(kit: Kit, tf_cpu: str, workspace: Path, docker: DockerClient) -> None:
    name, token = f"own-{uuid.uuid4().hex[:8]}", "a-token-of-mine"
    words = ("--name", name, "-e", f"JUPYTER_TOKEN={token}", "-C", str(workspace), tf_cpu, "jupyter")
    # Nothing behind the proxy: a health check that went through it would fail.
    environment = {**os.environ, "http_proxy": "http://proxy.example:1", "no_proxy": ""}
    try:
        done = kit("run", *words, "--ServerApp.base_url=/me", "--ServerApp.root_dir=/", env=environment)
        url = done.stdout.strip()
        assert url.endswith(f"/me/lab?token={token}")
        address = url.partition("/lab")[0]
        assert get(f"{address}/api/status", token=token)[0] == 200
        assert get(f"{address}/api/status")[0] == 403
        assert get(f"{address}/api/contents/workspace", token=token)[0] == 200
        assert kit("url", name).stdout.strip() == url
        container = docker.containers.get(name)
        check = container.image.attrs["Config"]["Healthcheck"]["Test"][1:]
        code, output = container.exec_run(check)
        assert code == 0, output
    finally:
        kit("rm", "--force", name)


def test_what_is_mounted_after_the_engine_started_is_there_or_said(kit: Kit, tf_cpu: str, tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(later)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"this machine mounts nothing: {made.stderr.strip()}")
    try:
        (later / "file").write_text("here")
        table = mounts.read_table()
        found = mounts.at(table, str(later))
        assert found is not None
        done = subprocess.run(
            [KIT, "-q", "run", "-C", str(later), tf_cpu, "cat", "file"], capture_output=True, text=True, check=False
        )
        if mounts.is_shared(table, found):
            assert (done.returncode, done.stdout) == (0, "here")
        else:
            assert done.returncode in (0, 2)
            assert (done.stdout == "here") == (done.returncode == 0)
            assert done.returncode == 0 or "mounted after the engine had started" in done.stderr
    finally:
        subprocess.run(["umount", str(later)], check=True)
