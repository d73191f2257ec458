"""A full disk, a read-only one, streams and folders that are gone: the code says which, nothing is half done, and what
needs no place to write works without one. The disks are real mounts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.cli import COMMANDS
from tests.cli.test_run import docker as built
from tests.conftest import Project, Result
from tests.engine.conftest import KIT
from tests.fake_docker import FakeDocker

__all__ = ["built"]
Kit = Callable[..., Result]
DISK_FULL, FILES = 14, 22
Disk = Callable[..., Path]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which needs root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes file systems of 64 kB: `full` or `ro` (read-only)."""
    mounted: list[Path] = []

    def mount(kind: str) -> Path:
        folder = tmp_path / f"{kind}{len(mounted)}"
        folder.mkdir()
        size = "-osize=64k,mode=0755"
        done = subprocess.run(["mount", "-t", "tmpfs", size, "none", str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("nothing can be mounted here")
        mounted.append(folder)
        if kind == "full":
            with pytest.raises(OSError, match="No space"):
                (folder / "fill").write_bytes(b"x" * 2**20)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"fill"}


# Commands that read, or whose files are only a help, work on any disk; the others say what is wrong with theirs.
READING = ("list", "show tf-cpu", "resolve tf", "config show", "matrix", "render --check", "ps")


@needs_root
@pytest.mark.parametrize("kind", ["full", "ro"])
@pytest.mark.parametrize("place", ["HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR"])
def test_commands_that_read_work_anyway(
    kit: Kit, fake_docker: FakeDocker, disk: Disk, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    folder = disk(kind)
    monkeypatch.setenv(place, str(folder))
    for command in READING:
        assert kit(*command.split()).code == 0, command
    assert not left(folder)


@needs_root
@pytest.mark.parametrize(
    ("kind", "place", "command", "code"),
    [
        ("ro", "images", "render tf-cpu", FILES),
        ("full", "cwd", "compose tf-cpu", DISK_FULL),
        ("ro", "cwd", "compose tf-cpu", 2),
        ("full", "HOME", "run tf-cpu true", DISK_FULL),
        ("full", "XDG_STATE_HOME", "run tf-cpu true", DISK_FULL),
        ("full", "XDG_STATE_HOME", "run tf-cpu jupyter", DISK_FULL),
        ("full", "XDG_CACHE_HOME", "build --force tf-cpu", DISK_FULL),
        ("full", "cwd", "run tf-cpu true", 0),
        ("full", "TMPDIR", "run tf-cpu true", 0),
        ("full", "XDG_CACHE_HOME", "run tf-cpu true", 0),
        ("ro", "HOME", "run tf-cpu true", 0),
        ("ro", "XDG_STATE_HOME", "run tf-cpu true", 0),
        ("ro", "XDG_CACHE_HOME", "run tf-cpu true", 0),
        ("ro", "cwd", "run tf-cpu true", 0),
        ("ro", "XDG_CACHE_HOME", "build --force tf-cpu", 0),
        ("ro", "HOME TMPDIR", "run tf-cpu true", FILES),
    ],
)
def test_commands_that_write(
    kit: Kit,
    built: FakeDocker,
    project: Project,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    place: str,
    command: str,
    code: int,
) -> None:
    """Full is exit code 14. Read-only is one of its own, but for what needs no place that lasts."""
    folder = disk(kind)
    if place == "images":
        (project.folder / "Dockerfile").write_text("changed")
        subprocess.run(["mount", "--bind", str(project.folder), str(project.folder)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(project.folder)], check=True)
    elif place == "cwd":
        monkeypatch.chdir(folder)
    else:
        for name in place.split():
            monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    try:
        result = kit(*command.split())
    finally:
        if place == "images":
            subprocess.run(["umount", str(project.folder)], check=True)
    assert result.code == code, result.err
    if code:
        assert str(folder) in result.err or "compose.yaml" in result.err or str(project.folder) in result.err
        assert "hint: " in result.err
        assert not built.called("run")
    assert not left(folder)


@needs_root
def test_what_a_read_only_home_is_not_needed_for(disk: Disk, tmp_path: Path) -> None:
    """The home on many a cluster's node: what goes with the machine is then beside its temporary files."""
    home, temporary = disk("ro"), tmp_path / "temporary"
    temporary.mkdir()
    script = "import sys; from kit import paths; print(paths.usable_folder(paths.state_folder, 'passwd'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(temporary)},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).parent == temporary / f"kit-{os.geteuid()}"
    assert (temporary / f"kit-{os.geteuid()}").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "command", ["--help", "--version", "list", "--json list", "resolve tf", "config show", "matrix"]
)
@pytest.mark.parametrize(
    ("stdout", "code"), [(">/dev/full", DISK_FULL), (">&-", 0), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 0)]
)
def test_what_the_streams_lead_to(
    fake_docker: FakeDocker, command: str, stdout: str, code: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{KIT}' {command} {stdout}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.parametrize("command", ["list", "--json list", "matrix", "show tf-cpu"])
def test_a_reader_that_goes_away_hears_nothing(command: str, tmp_path: Path) -> None:
    # -q: whether kit gets to its notices depends on when the reader goes.
    script = f"('{KIT}' -q {command}; echo code $? >&2) | head -1 >/dev/null"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == "code 0\n"


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"engine", "base"}))
def test_a_folder_that_is_gone(fake_docker: FakeDocker, command: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    more = {"run": "tf-cpu true", "compose": "tf-cpu", "show": "tf-cpu", "lock": "--check", "render": "--check"}
    words = f"{command} {more.get(command, '')}"
    done = subprocess.run(
        ["sh", "-c", f"rmdir '{gone}'; '{KIT}' {words}"],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 70, done.stderr
    assert "Traceback" not in done.stderr


@needs_root
@pytest.mark.parametrize("kind", ["full", "ro"])
def test_doctor_reads_the_machine_without_room_for_its_own_files(
    kit: Kit, fake_docker: FakeDocker, disk: Disk, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    known = kit("doctor")
    monkeypatch.setenv("TMPDIR", str(disk(kind)))
    found = kit("doctor")
    assert found.code == known.code
    assert "could not be read" not in found.out
    assert [line for line in found.out.splitlines() if line.startswith("engine")] == [
        line for line in known.out.splitlines() if line.startswith("engine")
    ]


# Root to whom the modes of files apply, as to everybody else.
ORDINARY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@needs_root
@pytest.mark.parametrize(
    ("command", "code"),
    [("list", 0), ("resolve tf", 0), ("config show", 0), ("ps", 0), ("matrix", 0), ("compose tf-cpu", 2)],
)
def test_without_the_right_to_write_anywhere(
    fake_docker: FakeDocker, tmp_path: Path, command: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(closed))
    done = subprocess.run(
        [*ORDINARY, KIT, *command.split()], cwd=closed, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(closed.iterdir())
