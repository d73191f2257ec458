"""A stand-in for the docker program: an executable that records how it was called and plays canned replies.

Engine code is tested through real processes with it: argument lists, environments, exit codes and error texts
are those that a real docker would get and give; only what a daemon would do is left out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Plays the last reply whose words open the argument list. A reply with `serve` starts a web server on the
# published port that answers as Jupyter does (with its token only), until `docker rm`.
PROGRAM = """#!{python} -IS
import json, os, signal, sys, time
folder = {folder!r}
args = sys.argv[1:]
for argument in args:
    if argument.startswith("--env-file="):
        with open(argument.partition("=")[2]) as variables:
            os.environ.update(line.rstrip("\\n").split("=", 1) for line in variables)
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps({{"args": args, "env": dict(os.environ), "pid": os.getpid()}}) + "\\n")

def serve(port, token, status):
    import http.server
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers.get("Authorization") == "token " + token
            self.send_response(status if known else 403)
            self.end_headers()
            self.wfile.write(b'{{"started": "2026-11-21T00:00:00Z"}}')
        def log_message(self, *_):
            pass
    http.server.HTTPServer.allow_reuse_address = True
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()

if args[:1] == ["rm"] and os.path.exists(folder + "/server"):
    with open(folder + "/server") as file:
        for pid in file.read().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
with open(folder + "/replies") as file:
    replies = [r for r in json.load(file) if args[:len(r["words"])] == r["words"]]
if not replies:
    sys.exit(0)
reply = replies[-1]
if reply["times"] is not None:
    mark = folder + "/played." + str(reply["number"])
    with open(mark, "a") as file:
        file.write("x")
    if os.path.getsize(mark) > reply["times"]:
        reply = replies[-2] if len(replies) > 1 else dict(reply, stdout="", stderr="", code=0, serve=0)
if reply["serve"]:
    port = int(next(a for a in args if a.startswith("--publish=")).split(":")[1])
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        serve(port, os.environ.get("JUPYTER_TOKEN", ""), reply["serve"])
    with open(folder + "/server", "a") as file:
        file.write(str(pid) + "\\n")
sys.stdout.write(reply["stdout"])
sys.stdout.flush()
sys.stderr.write(reply["stderr"])
sys.stderr.flush()
time.sleep(reply["sleep"])
sys.exit(reply["code"])
"""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the fake program."""

    args: list[str]
    env: dict[str, str]
    pid: int


class FakeDocker:
    """Writes the program into `folder`/bin and tells it what to answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.program = self.bin / "docker"
        self._replies: list[dict[str, Any]] = []
        self.bin.mkdir(parents=True)
        self.program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        self.program.chmod(0o755)
        self._write()

    def reply(
        self,
        *words: str,
        stdout: str = "",
        stderr: str = "",
        code: int = 0,
        sleep: float = 0,
        serve: int = 0,
        times: int | None = None,
    ) -> None:
        """Answer calls that begin with these words; later replies go first, `times` often at most."""
        self._replies.append(
            {
                "words": list(words),
                "stdout": stdout,
                "stderr": stderr,
                "code": code,
                "sleep": sleep,
                "serve": serve,
                "times": times,
                "number": len(self._replies),
            }
        )
        self._write()

    def has_image(self, labels: dict[str, str], *, is_kits: bool = True) -> None:
        """There is an image with these labels, made by kit or not."""
        self.reply("image", "inspect", stdout=f"{json.dumps(labels)} sha256:1\n")
        self.reply("volume", "inspect", stdout=json.dumps({"kit.image-id": "sha256:1" if is_kits else "sha256:2"}))

    def _write(self) -> None:
        # Whole or not at all: a call that is made meanwhile reads it.
        beside = self.folder / "replies.new"
        beside.write_text(json.dumps(self._replies))
        beside.replace(self.folder / "replies")

    @property
    def calls(self) -> list[Call]:
        file = self.folder / "calls"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        # A call that is being written down has no end of line yet.
        return [Call(**json.loads(line)) for line in lines if line.endswith("\n")]

    def called(self, *words: str) -> list[Call]:
        """The calls whose arguments begin with these words."""
        return [call for call in self.calls if call.args[: len(words)] == list(words)]

    def close(self) -> None:
        file = self.folder / "server"
        for pid in file.read_text().split() if file.exists() else []:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def info(**changes: Any) -> str:
    """What `docker info --format={{json .}}` prints (Docker 28.5, containerd store), with changes."""
    return json.dumps(
        {
            "ServerVersion": "28.5.2",
            "Driver": "overlayfs",
            "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
            "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}},
            "CDISpecDirs": [],
            "DockerRootDir": "/var/lib/docker",
            "NCPU": 2,
            "MemTotal": 25276502016,
            **changes,
        }
    )


def container(name: str = "kit-tf-cpu-jupyter-ab12", **changes: Any) -> dict[str, Any]:
    """One container as `docker container inspect` prints it, cut down to what kit reads."""
    labels = {
        "kit.image": "tf-cpu",
        "kit.service": "jupyter",
        "kit.user": "1000:1000",
        "kit.owner": str(os.getuid()),
        "kit.owner-name": "alice",
        "kit.gpus": "",
        "kit.client": "elsewhere:1",
        **changes.pop("labels", {}),
    }
    state = {
        "Status": "running",
        "ExitCode": 0,
        "StartedAt": "2026-11-21T06:00:00Z",
        **changes.pop("state", {}),
    }
    raw = {
        "Name": f"/{name}",
        "State": state,
        "Config": {
            "Image": "kit/tf-cpu:latest",
            "Labels": labels,
            "Env": ["PATH=/bin", "JUPYTER_TOKEN=se=cret"],
            "Cmd": ["python", "train.py"],
        },
        "Mounts": [{"Type": "bind", "Source": "/srv/mnist", "Destination": "/workspace"}],
        "HostConfig": {"PortBindings": {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8890"}]}},
    }
    return {**raw, **changes}
