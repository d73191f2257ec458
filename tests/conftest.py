"""What all tests share: a machine of their own (home, settings), a fake docker, and the `kit` command."""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from kit import locks, paths, render
from kit.catalog import Catalog, load_catalog
from kit.catalog.rows import Image
from kit.engine import Engine, built
from kit.errors import KitError
from kit.facts import sockets
from kit.facts.host import Host

try:
    from tests.fake_docker import FakeDocker, info
except ImportError:  # this file was copied beside the tests of its own rules (tests/unit/test_conftest.py)
    FakeDocker = info = None  # type: ignore[assignment,misc]

REPOSITORY = Path(paths.__file__).resolve().parent.parent
# Settings of whoever runs the tests that would reach the code under test.
FOREIGN = ("DOCKER_", "BUILDX_", "KIT_", "XDG_", "UV_", "PIP_", "SUDO_", "SSL_CERT_", "CUDA_", "SLURM_")
# What the fake docker says of the machine (tests/fake_docker.py), and what the machine says of itself.
MACHINE = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 25276502016 // 4096}
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")

# How long an example takes says nothing of kit where several processes share the machine.
settings.register_profile("kit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")

# Tests send these to programs, which would inherit that `nohup`, or a script's `&`, has them ignored. What a Python
# function handles is not inherited.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write what tests/cli/test_golden.py compares with.")


# What may run at the same time on one engine (`make test-engine`): one process has the tests that start containers as
# the user who runs them, the other those of other accounts, which wait a lot.
OTHER_ACCOUNTS = ("tests/engine/podman/", "tests/engine/remote/")

# Files that mostly wait for links, locks and ends of programs: two lanes of about the same length (`make test-unit`).
# They come first and go on beside the others: whatever they wait for, there is a process with something to do.
WAITING = (
    ("tests/engine/ssh/test_tunnels.py", "tests/unit/test_process.py", "tests/unit/test_sync.py"),
    ("tests/unit/test_tunnels.py", "tests/engine/ssh/", "tests/unit/test_host_probe.py", "tests/unit/test_lease.py"),
)


def waiting_lane(nodeid: str) -> int | None:
    return next((number for number, files in enumerate(WAITING) if nodeid.startswith(files)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests stay together in one process."""
    from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

    class Unit(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            lane = waiting_lane(nodeid)
            return f"lane {lane}" if lane is not None else str(super()._split_scope(nodeid))

    class Engine(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            is_own = nodeid.startswith("tests/engine/remote/test_remote_engine.py")
            return "others" if nodeid.startswith(OTHER_ACCOUNTS) and not is_own else "own"

    config.option.loadscopereorder = False  # which would put what has the most tests first
    schedulers = {"loadfile": Unit, "loadscope": Engine}
    dist = config.getoption("dist")
    return schedulers[dist](config, log) if dist in schedulers else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: waiting_lane(item.nodeid) is None)


@cache
def engine_problem() -> str:
    """Why engine tests cannot run here; empty when a Docker answers. Those of Podman make a host of their own."""
    from kit.engine import connect

    try:
        engine = connect()
        if engine.kind != "docker":
            return f"the engine is {engine.kind}, and no Docker answers: `kit engine up` starts kit's private one"
        return "" if engine.info.version else "the engine does not say its version"
    except KitError as e:
        return f"{e.message}: {e.hint}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("engine") and (problem := engine_problem()):
        if os.environ.get("KIT_REQUIRE_ENGINE") == "1":
            pytest.fail(f"KIT_REQUIRE_ENGINE=1, but {problem}", pytrace=False)
        pytest.skip(f"needs a container engine: {problem}")
    if item.get_closest_marker("gpu"):
        from kit.host import host_has_gpu

        if not host_has_gpu():
            pytest.skip("needs an NVIDIA GPU: this host has no NVIDIA driver loaded")


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New empty folders. Not of `mktemp`, which lists all that there are each time: thousands, after a while."""
    parent = tmp_path_factory.mktemp("homes")
    return (parent / f"home{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def own_machine(
    request: pytest.FixtureRequest, homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Tests other than `engine` and `gpu` ones see an empty home, no settings of their caller, no engine, 24 GB."""
    if request.node.get_closest_marker("engine") or request.node.get_closest_marker("gpu"):
        yield
        return
    for name in os.environ:
        if name.startswith(FOREIGN) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    sysconf = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: MACHINE.get(name) or sysconf(name))
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KIT_ENGINE_DIR", str(home / "no-engine"))
    monkeypatch.setattr(sockets, "CANDIDATES", tuple(replace(c, folder=str(home / "no")) for c in sockets.CANDIDATES))
    monkeypatch.setattr("kit.engine.find._has_podman_alone", lambda: False)
    monkeypatch.setattr(paths, "command", lambda **_: "kit")  # wherever these tests are run from
    monkeypatch.setattr("kit.host.PCI_DEVICES", home / "no-bus")
    for module in ("host", "run.lease"):
        monkeypatch.setattr(f"kit.{module}.host_has_gpu", lambda traces=(): any(trace.exists() for trace in traces))
    paths.root_dir.cache_clear()
    yield
    # A command does not wait long for it, and the next test's engine is another.
    for thread in threading.enumerate():
        if thread.name == built.THREAD:
            thread.join(30)
    paths.root_dir.cache_clear()
    if ssh := sys.modules.get("kit.remote.ssh"):
        ssh.rest_all()


@pytest.fixture
def patch_read_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Host]], None]:
    """Says what answers in the place of `kit.host.read_gpus`, wherever kit reads the GPUs of a machine."""

    def patch(read: Callable[..., Host]) -> None:
        for user in ("image.build.ensure", "cli.gpus", "cli.resolve", "compose.make", "run.lease"):
            if hasattr(importlib.import_module(f"kit.{user}"), "read_gpus"):  # imported with the module, not later
                monkeypatch.setattr(f"kit.{user}.read_gpus", read)
        monkeypatch.setattr("kit.host.read_gpus", read)

    return patch


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDocker]:
    """A `docker` first on PATH, chosen by DOCKER_HOST: it answers `info`, and what the test says."""
    fake = FakeDocker(tmp_path / "fake-docker")
    fake.reply("info", stdout=info())
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "unix:///fake.sock")
    yield fake
    fake.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest, fake_docker: FakeDocker) -> Engine:
    """An engine whose program is the fake docker."""
    assert not request.node.get_closest_marker("engine"), "a test of a real engine asks kit's `connect` for it"
    return Engine(program=str(fake_docker.program))


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()


@dataclass(frozen=True, kw_only=True)
class Project:
    """A folder with templates and the files of one image, lock included, that a test may change."""

    root: Path
    image: Image
    catalog: Catalog

    @property
    def folder(self) -> Path:
        return self.root / "images" / self.image.name

    def lock(self, requirements: str) -> None:
        """Lock the image to these requirements, as `kit lock` would have, and render its Dockerfile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        base = locks.locked_base(self.catalog, self.image)
        (self.folder / locks.REQUIREMENTS_FILE).write_text(requirements)
        (self.folder / locks.LOCK_FILE).write_text(
            json.dumps(
                {
                    "_": "for a test",
                    "schema": locks.SCHEMA,
                    "image": self.image.name,
                    "unlocked": "",
                    "inputs_hash": locks.inputs_hash(self.catalog, self.image),
                    "requirements_hash": locks.sha256(requirements),
                    "base": {
                        "reference": base.reference,
                        "digest": base.digest,
                        "digest_status": base.digest_status,
                    },
                    "suites": list(self.image.release.suites),
                    "pythons": self.catalog.pythons_for(self.image),
                    "uv": self.catalog.uv_version,
                    "snapshot": "2026-11-21",
                    "source_date_epoch": 1795219200,
                    "packages": 1,
                    "layers": {},
                }
            )
        )
        render.render(self.catalog, [self.image])


REQUIREMENTS = (
    "# layer: cuda\n# layer: framework\ntensorflow==2.21.0 \\\n    --hash=sha256:"
    + "0" * 64
    + "\n# layer: apps\n# layer: devel\n"
)


@pytest.fixture
def project(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Project:
    """KIT_ROOT with a copy of the templates and a locked `tf-cpu`."""
    root = tmp_path / "root"
    (root / "templates").mkdir(parents=True)
    for file in (REPOSITORY / "templates").iterdir():
        (root / "templates" / file.name).write_text(file.read_text())
    monkeypatch.setenv("KIT_ROOT", str(root))
    paths.root_dir.cache_clear()
    made = Project(root=root, image=catalog.find("tf-cpu"), catalog=catalog)
    made.lock(REQUIREMENTS)
    return made


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a `kit` command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """Runs `kit ARGUMENTS…` as the entry point does; what the programs it starts print is captured too."""
    from kit.cli import main

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["kit", *args])
        root.handlers[:] = []  # pytest's own, with which kit's would not be set up
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(code=ended.value.code, out=printed.out, err=printed.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
