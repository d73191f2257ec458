"""What changes a project's environment: kit.toml and kit.lock together, or neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kit import config, paths
from kit.catalog import load_catalog
from kit.environment import format
from kit.environment.current import inputs_hash
from kit.environment.declared import Declared, declared
from kit.environment.format import EnvironmentLock, Package
from kit.errors import BadInputError, CheckFailedError, LockError, NotReadyError
from kit.locks.format import read_lock, sha256
from kit.project import diff, keep
from kit.project.add import Changed, Solve, add, change, remove
from kit.project.diff import Added, Difference, beyond
from kit.project.turn import turn
from kit.screen import Screen

WRITTEN = """\
# The project of the summer.
[environment]
image = "tf-cpu"
packages = [
    "einops>=0.8",  # for the patches
]
"""
HASH = f"sha256:{'0' * 64}"
IMAGE = dict(read_lock(paths.images_dir() / "tf-cpu", load_catalog().find("tf-cpu")).packages)


class Quiet:
    """A screen that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def screen() -> Screen:
    return Quiet()  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path.resolve() / "project"
    made.mkdir()
    (made / "kit.toml").write_text(WRITTEN)
    return made


def reader(folder: Path) -> Callable[[], Declared]:
    def read() -> Declared:
        found = declared(config.load(folder))
        assert found is not None
        return found

    return read


def solver(**versions: str) -> Solve:
    """A solution of what is declared: of the packages with a version here, those that are asked for."""

    def solve(wanted: Declared) -> EnvironmentLock:
        names = [name for name in versions if any(text.startswith(name) for text in wanted.packages)]
        packages = tuple(Package(name=name, version=versions[name], hashes=(HASH,)) for name in sorted(names))
        return EnvironmentLock(
            kit="0.1.0",
            uv="0.0.0",
            inputs_hash=inputs_hash(wanted),
            image="tf-cpu",
            image_lock=HASH,
            pythons=("3.12",),
            source_date_epoch=1,
            requirements_hash=sha256("".join(package.requirement.text() for package in packages)),
            packages=packages,
        )

    return solve


def locked(folder: Path) -> EnvironmentLock:
    found = format.read(folder)
    assert found is not None
    return found


def test_what_is_added_is_in_both_files_and_they_fit(folder: Path, screen: Screen) -> None:
    done = add(reader(folder), ("timm",), ("ffmpeg",), solver(einops="0.8.1", timm="1.0.20"), screen)
    text = (folder / "kit.toml").read_text()
    assert text == WRITTEN.replace("patches\n", 'patches\n    "timm>=1.0",\n') + 'system = [\n    "ffmpeg",\n]\n'
    assert [(e.name, e.text, e.versions, e.is_in_image) for e in done.added] == [
        ("timm", "timm>=1.0", ("1.0.20",), False),
    ]
    assert (done.system_added, done.packages, done.is_any) == (("ffmpeg",), 2, True)
    assert locked(folder).inputs_hash == inputs_hash(reader(folder)())


def test_what_the_image_has_gets_no_bound(folder: Path, screen: Screen) -> None:
    done = add(reader(folder), ("Pandas",), (), solver(einops="0.8.1"), screen)
    assert [(e.text, e.is_in_image) for e in done.added] == [("Pandas", True)]
    assert IMAGE["pandas"] in done.added[0].versions


def test_an_older_line_without_a_version_stays_so(folder: Path, screen: Screen) -> None:
    (folder / "kit.toml").write_text(WRITTEN.replace("einops>=0.8", "einops"))
    add(reader(folder), ("timm",), (), solver(einops="0.8.1", timm="1.0.20"), screen)
    assert '"einops",  # for' in (folder / "kit.toml").read_text()


def test_the_bound_is_the_lowest_of_several_pythons(folder: Path, screen: Screen) -> None:
    def solve(wanted: Declared) -> EnvironmentLock:
        both = [Package(name="timm", version=v, marker=f"python_version {m}", hashes=(HASH,)) for v, m in pythons]
        return replace(solver()(wanted), packages=tuple(both))

    pythons = [("1.10.0", ">= '3.12'"), ("1.9.2", "< '3.12'")]
    assert add(reader(folder), ("timm",), (), solve, screen).added[0].text == "timm>=1.9"


def test_what_is_removed_is_in_neither(folder: Path, screen: Screen) -> None:
    add(reader(folder), ("timm",), (), solver(einops="0.8.1", timm="1.0.20"), screen)
    done = remove(reader(folder), ("Einops",), (), solver(einops="0.8.1", timm="1.0.20"), screen)
    assert done.removed == ("einops>=0.8",)
    assert [package.name for package in locked(folder).packages] == ["timm"]
    assert "einops" not in (folder / "kit.toml").read_text()


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mode) for file in folder.iterdir()}


@pytest.mark.parametrize("error", [LockError("no solution"), KeyboardInterrupt()])
@pytest.mark.parametrize("has_lock", [True, False])
def test_without_a_solution_both_are_as_they_were(
    folder: Path, screen: Screen, error: BaseException, has_lock: bool
) -> None:
    if has_lock:
        format.write(folder, solver(einops="0.8.1")(reader(folder)()))
    before = state(folder)

    def solve(wanted: Declared) -> EnvironmentLock:
        format.write(folder, solver(timm="1.0")(wanted))  # as `kit lock` does
        raise error

    with pytest.raises(type(error)):
        add(reader(folder), ("timm",), (), solve, screen)
    assert state(folder) == before


def test_a_full_disk_leaves_both_as_they_were(folder: Path, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    format.write(folder, solver(einops="0.8.1")(reader(folder)()))
    before, write = state(folder), paths.write_text

    def fail(path: Path, text: str, **how: int) -> None:
        if path.name == "kit.toml":
            raise OSError(28, "No space left on device", str(path))
        write(path, text, **how)

    monkeypatch.setattr(paths, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        add(reader(folder), ("timm",), (), solver(einops="0.8.1", timm="1.0.20"), screen)
    assert state(folder) == before


def test_what_somebody_writes_meanwhile_stays(folder: Path, screen: Screen) -> None:
    def solve(wanted: Declared) -> EnvironmentLock:
        (folder / "kit.toml").write_text(WRITTEN + "# mine\n")
        return solver(einops="0.8.1")(wanted)

    with pytest.raises(BadInputError, match="was changed meanwhile"):
        add(reader(folder), ("timm",), (), solve, screen)
    assert (folder / "kit.toml").read_text() == WRITTEN + "# mine\n"
    assert not (folder / "kit.lock").exists()


def test_a_link_and_its_mode_stay(folder: Path, screen: Screen) -> None:
    real = folder / "shared.toml"
    (folder / "kit.toml").rename(real)
    real.chmod(0o640)
    (folder / "kit.toml").symlink_to("shared.toml")
    add(reader(folder), ("timm",), (), solver(timm="1.0.20"), screen)
    assert (folder / "kit.toml").is_symlink()
    assert "timm>=1.0" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_link_to_another_project_is_not_followed(folder: Path, screen: Screen) -> None:
    other = folder.parent / "other.toml"
    (folder / "kit.toml").rename(other)
    (folder / "kit.toml").symlink_to("../other.toml")
    with pytest.raises(BadInputError, match="is a link to"):
        add(reader(folder), ("timm",), (), solver(timm="1.0.20"), screen)
    assert other.read_text() == WRITTEN


# `kit add` with a solve that takes a while.
PROCESS = """
import sys, time
from pathlib import Path
from kit.project.add import add
from tests.unit.test_project import Quiet, reader, solver

def solve(wanted):
    print("solving", flush=True)
    time.sleep(0.5)
    return solver(**dict.fromkeys(("einops", "timm", "umap", "gluon", "torchmetrics"), "1.0"))(wanted)

add(reader(Path(sys.argv[1])), (sys.argv[2],), (), solve, Quiet())
"""


def test_several_at_once_queue_and_all_take_effect(folder: Path) -> None:
    names = ("timm", "umap", "gluon")
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(folder), name], env={**os.environ}) for name in names
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    found = reader(folder)()
    assert set(found.packages) == {"einops>=0.8", *(f"{name}>=1.0" for name in names)}
    assert {package.name for package in locked(folder).packages} == {"einops", *names}
    assert locked(folder).inputs_hash == inputs_hash(found)


def test_a_turn_may_be_taken_inside_and_another_process_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with turn(folder), turn(folder):
        pass
    script = "import pathlib, sys; from kit.project.turn import turn; held = turn(pathlib.Path(sys.argv[1]));"
    with subprocess.Popen(
        [sys.executable, "-c", f"{script} held.__enter__(); print(); input()", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        other.stdout.readline()
        monkeypatch.setattr("kit.project.turn.WAIT_S", 0.1)
        with pytest.raises(NotReadyError), turn(folder):
            pass
        other.kill()
    with turn(folder):
        pass  # the kernel has let go of it


def answer(*packages: dict[str, object]) -> str:
    return json.dumps(packages)


EINOPS = {"name": "einops", "version": "0.8.1", "requested": True, "origin": {}}


def test_beyond_the_lock_is_what_it_has_not_or_otherwise() -> None:
    said = answer(
        EINOPS,
        {**EINOPS, "name": "Timm", "version": "1.0", "requested": False},
        {**EINOPS, "name": "numpy", "version": "1.0"},
        {**EINOPS, "name": "rich", "version": "13.0"},
    )
    assert beyond(said, {"numpy": ("2.3", "2.2"), "rich": ("13.0",)}) == (
        Added(name="einops", version="0.8.1", is_requested=True),
        Added(name="numpy", version="1.0", is_requested=True, locked=("2.3", "2.2")),
        Added(name="Timm", version="1.0"),
    )


@pytest.mark.parametrize(
    "said",
    [
        *("", "Traceback", "[1", '{"name": 1'),
        answer({**EINOPS, "name": "a b"}),
        answer({**EINOPS, "name": "a\u202eb"}),
        answer({**EINOPS, "version": "no"}),
        answer({**EINOPS, "name": None}),
    ],
)
def test_an_answer_that_is_none(said: str) -> None:
    with pytest.raises(CheckFailedError):
        beyond(said, {})


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ({}, ""),
        ({"url": "file:///home/me/x", "dir_info": {}}, "/home/me/x"),
        ({"url": "https://u:secret@x.example/a.git", "vcs_info": {"commit_id": "f" * 40}}, "at ffffffffffff"),
        ({"url": ["x"]}, ""),
    ],
)
def test_where_a_package_is_from(origin: dict[str, object], shown: str) -> None:
    (found,) = beyond(answer({**EINOPS, "origin": origin}), {})
    assert shown in found.origin
    assert bool(shown) == bool(found.origin)
    assert "secret" not in found.origin


def test_the_lock_of_an_environment_is_the_images_and_its_own() -> None:
    def own(name: str, version: str, replaces: str = "") -> Package:
        return Package(name=name, version=version, replaces=replaces, hashes=(HASH,))

    empty = solver()(Declared(folder=Path(), image="tf-cpu"))
    lock = replace(empty, packages=(own("einops", "0.8.1"), own("tqdm", "1.0", IMAGE["tqdm"])))
    found = diff.locked("tf-cpu", lock)
    assert (found["einops"], found["tqdm"]) == (("0.8.1",), ("1.0",))
    assert IMAGE["pandas"] in found["pandas"]


def found(*packages: Added) -> Difference:
    return Difference(image="tf-cpu", container="kit-tf-cpu-1", packages=packages)


def test_what_was_asked_for_by_name_is_kept_and_the_rest_is_said() -> None:
    git = Added(name="mine", version="0.1", is_requested=True, origin="https://x.example/mine at 123456789012")
    own = Added(name="project", version="0.1", is_requested=True, origin="/workspace")
    pip = Added(name="pip", version="99.0", is_requested=True)
    timm, hub = Added(name="timm", version="1.0.20", is_requested=True), Added(name="hub", version="1.0")
    plan = keep.plan(found(git, own, pip, timm, hub))
    assert (plan.taken, plan.follows) == ((timm,), (hub,))
    assert [(package.name, reason.split(":")[0]) for package, reason in plan.left] == [
        ("mine", "from https"),
        ("project", "from the project's own folder"),
        ("pip", "it is what installs, and is in the image"),
    ]


def test_what_is_kept_is_locked_as_it_was_tried(folder: Path, screen: Screen) -> None:
    asked: list[Declared] = []

    def solve(wanted: Declared) -> EnvironmentLock:
        asked.append(wanted)
        return solver(einops="0.8.1", timm="1.0.20")(wanted)

    tried = keep.plan(
        found(
            Added(name="timm", version="1.0.20", is_requested=True),
            Added(name="einops", version="0.8.1", is_requested=True),
        )
    )
    done = keep.keep(reader(folder), tried, solve, screen)
    assert [entry.text for entry in done.added] == ["timm>=1.0"]
    assert set(asked[0].packages) == {"einops>=0.8", "timm>=1.0", "timm==1.0.20", "einops==0.8.1"}
    assert reader(folder)().packages == ("einops>=0.8", "timm>=1.0")
    assert locked(folder).inputs_hash == inputs_hash(reader(folder)())


def test_a_line_that_does_not_admit_what_was_tried_gives_way(folder: Path, screen: Screen) -> None:
    tried = keep.plan(found(Added(name="einops", version="0.7.2", is_requested=True)))
    done = keep.keep(reader(folder), tried, solver(einops="0.7.2"), screen)
    assert isinstance(done, Changed)
    assert '"einops>=0.7",  # for the patches' in (folder / "kit.toml").read_text()


def test_nothing_to_change_is_a_lock_all_the_same(folder: Path, screen: Screen) -> None:
    done = change(reader(folder), lambda text: keep.manifest.add(text, ["einops"]), solver(einops="0.8.1"), screen)
    assert not done.is_any
    assert (folder / "kit.toml").read_text() == WRITTEN
    assert locked(folder).packages[0].version == "0.8.1"
