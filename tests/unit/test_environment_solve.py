"""A project's lock: what of its packages goes beside an image, and what is said where they do not."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kit import paths
from kit.catalog import Catalog, load_catalog
from kit.catalog.rows import Image
from kit.environment.declared import Declared
from kit.environment.format import EnvironmentLock, read, write
from kit.environment.solve import differences, inputs_hash, solve
from kit.errors import BadInputError, KitError, LockError, NetworkError
from kit.locks.format import read_lock
from tests.environment_world import make_world, variables


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def catalog(world: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    for name, value in variables(world).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(paths, "images_dir", lambda: world / "images")
    return load_catalog(world / "catalog")


@pytest.fixture
def image(catalog: Catalog) -> Image:
    return catalog.find("torch2.6-cu124")


Lock = Callable[..., EnvironmentLock]


@pytest.fixture
def lock(catalog: Catalog, image: Image, tmp_path: Path) -> Lock:
    def locked(*packages: str, present: EnvironmentLock | None = None, **more: Any) -> EnvironmentLock:
        fields = {name: more.pop(name) for name in ("indexes", "project") if name in more}
        declared = Declared(folder=tmp_path, image="torch2.6-cu124", packages=packages, **fields)
        return solve(catalog, declared, image, present=present, **more)

    return locked


def _versions(lock: EnvironmentLock) -> dict[str, str]:
    return {package.name: package.version for package in lock.packages}


def _fails(lock: Lock, *packages: str, **more: Any) -> LockError:
    with pytest.raises(LockError) as caught:
        lock(*packages, **more)
    assert caught.value.exit_code == 6
    return caught.value


def test_the_lock_has_what_the_image_lacks_and_says_what_it_is_of(lock: Lock, image: Image, tmp_path: Path) -> None:
    found = lock("einops", "numpy>=1.20", "pydantic", "tomli; sys_platform == 'win32'")
    assert _versions(found) == {"einops": "0.8.1"}  # the cap of images is not one of projects
    own = read_lock(paths.images_dir() / image.name, image)
    assert (found.image, found.image_lock) == (image.name, own.lock_hash)
    assert (found.pythons, found.source_date_epoch) == (("3.10", "3.11"), own.source_date_epoch)
    assert write(tmp_path, found)
    assert read(tmp_path) == found


def test_nothing_asked_for_is_a_lock_of_nothing(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "file:///nonexistent")  # nobody is asked
    assert lock().packages == ()


def test_extras_and_markers_are_followed(lock: Lock) -> None:
    assert _versions(lock("lightning[extra]")) == {"lightning": "2.0", "einops": "0.8.1"}
    (found,) = lock("einops ; python_version >= '3.11'").packages
    assert found.marker == "python_full_version == '3.11.*'"
    assert lock("einops ; sys_platform == 'darwin'").packages == ()


def test_versions_stay_until_they_are_let_go_of(lock: Lock) -> None:
    old = lock("einops==0.8.0")
    assert lock("einops", present=old) != old  # another declaration
    assert _versions(lock("einops", present=old)) == {"einops": "0.8.0"}
    kept = lock("einops", present=old)
    assert lock("einops", present=kept) is kept
    assert _versions(lock("einops", present=kept, upgrade=True)) == {"einops": "0.8.1"}
    both = lock("einops", "gradio==5.0", present=kept)
    assert _versions(both) == {"einops": "0.8.0", "gradio": "5.0"}
    one = lock("einops", "gradio", present=both, upgrade_packages=frozenset({"einops"}))
    assert _versions(one) == {"einops": "0.8.1", "gradio": "5.0"}
    with pytest.raises(BadInputError, match="no package of this project is `gardio`"):
        lock("einops", present=kept, upgrade_packages=frozenset({"gardio"}))


def test_another_kit_that_comes_to_the_same_leaves_the_lock_as_it_is(lock: Lock) -> None:
    older = dataclasses.replace(lock("einops"), kit="0.0.1", uv="0.1")
    assert lock("einops", present=older) is older


def test_the_newest_of_what_was_asked_for_moves_what_is_in_its_way_and_that_is_said(lock: Lock) -> None:
    said: list[str] = []
    found = lock("gradio", say=said.append)
    assert _versions(found) == {"gradio": "6.0", "einops": "0.8.1", "pydantic": "2.11.9"}
    moved = next(package for package in found.packages if package.name == "pydantic")
    assert moved.replaces == "2.13.1"
    assert said == ["gradio needs pydantic<2.12: pydantic 2.11.9 takes the place of the image's 2.13.1"]
    # What no longer needs it gives the image its own back.
    assert _versions(lock("einops", present=found)) == {"einops": "0.8.1"}


def test_what_only_comes_along_moves_what_is_in_its_way_too(lock: Lock) -> None:
    said: list[str] = []
    found = lock("deep", say=said.append)
    assert _versions(found) == {"deep": "2.0", "deeper": "1.0", "pydantic": "2.11.9"}
    assert said == ["deeper needs pydantic<2.12: pydantic 2.11.9 takes the place of the image's 2.13.1"]


def test_what_kit_toml_itself_moves(lock: Lock) -> None:
    said: list[str] = []
    found = lock("pydantic<2.12", say=said.append)
    assert [(p.name, p.version, p.replaces) for p in found.packages] == [("pydantic", "2.11.9", "2.13.1")]
    assert said == ["pydantic 2.11.9 takes the place of the image's 2.13.1, as kit.toml asks for it"]


def test_a_version_without_a_wheel_for_a_base_gives_way_to_one_that_has_them(lock: Lock) -> None:
    said: list[str] = []
    assert _versions(lock("some-wheels", say=said.append)) == {"some-wheels": "1.0"}
    assert said == ["some-wheels 1.1 has no wheel for Python 3.10 on linux x86_64: another release is taken"]
    error = _fails(lock, "some-wheels==1.1")
    assert error.message.startswith("some-wheels 1.1 has no wheel for Python 3.10 on linux x86_64")
    # One that is much older is not taken unasked.
    assert _fails(lock, "much-older").message.startswith("much-older 2.0 has no wheel")


def test_every_wheel_is_for_the_machines_of_the_image(lock: Lock) -> None:
    error = _fails(lock, "windows-only")
    assert "windows-only" in error.message
    assert "has no wheel for Python 3.10" in error.message


def test_the_package_wants_another_framework(lock: Lock) -> None:
    error = _fails(lock, "einops", "wants-old==1.0")
    assert error.message == "`wants-old==1.0` wants torch<2.5, and the image `torch2.6-cu124` holds torch 2.6.0"
    assert error.hint == (
        "`wants-old==0.9` is the newest that fits; or the image `torch2.4-cu124` has torch 2.4.0; nothing was written"
    )


def test_an_older_release_is_not_taken_without_a_word(lock: Lock) -> None:
    said: list[str] = []
    found = lock("slow", "einops", say=said.append)
    assert _versions(found) == {"slow": "1.1", "einops": "0.8.1"}
    assert said == ["slow 1.2 wants torch<2.5, and the image `torch2.6-cu124` holds torch 2.6.0: 1.1 is taken"]
    said.clear()
    lock("slow<1.2", "einops", say=said.append)  # which is asked for
    lock("slow", "einops", present=found, say=said.append)  # as it was before
    assert said == []


def test_one_that_is_much_older_is_not_taken_at_all(lock: Lock) -> None:
    error = _fails(lock, "wants-old", "einops")
    assert error.message == "wants-old 1.1 wants torch<2.5, and the image `torch2.6-cu124` holds torch 2.6.0"
    assert error.hint == (
        "`wants-old==0.9` is the newest that fits; or the image `torch2.4-cu124` has torch 2.4.0; nothing was written"
    )
    assert _versions(lock("wants-old==0.9")) == {"wants-old": "0.9"}
    assert _fails(lock, "built").message == "built 2.0 needs flash, which has no wheel"
    error = _fails(lock, "aged")
    assert error.message == (
        "aged 2.0 wants torch<2.5, and the image `torch2.6-cu124` holds torch 2.6.0; "
        "aged 1.0 has no wheel for Python 3.10 on linux x86_64"
    )
    assert error.hint == "the image `torch2.4-cu124` has torch 2.4.0; nothing was written"


def test_what_a_package_brings_along_wants_another_framework(lock: Lock) -> None:
    error = _fails(lock, "einops", "via")
    assert error.message == (
        "`via` needs never, which wants torch<2.5, and the image `torch2.6-cu124` holds torch 2.6.0"
    )
    assert error.hint == "the image `torch2.4-cu124` has torch 2.4.0; nothing was written"


def test_kit_toml_asks_for_another_of_what_is_held(lock: Lock) -> None:
    error = _fails(lock, "numpy<2")
    assert error.message == (
        "kit.toml asks for numpy<2, and the image `torch2.6-cu124` holds numpy 2.1.0, which it is built around"
    )
    assert error.hint == "no image of the catalog has it; nothing was written"
    assert "the image `torch2.4-cu124` has torch 2.4.0" in _fails(lock, "torch==2.4").hint


def test_what_is_compiled_for_another_numpy_is_refused(lock: Lock) -> None:
    error = _fails(lock, "some-wheels<0.5")
    assert "some-wheels" in error.message


def test_a_package_of_the_image_is_in_the_way(lock: Lock) -> None:
    error = _fails(lock, "old-school")
    assert error.message == (
        "`old-school` wants pydantic<2, and jupyterlab of the image `torch2.6-cu124` wants pydantic>=2"
    )


def test_two_of_the_project_do_not_go_together(lock: Lock) -> None:
    error = _fails(lock, "gradio==6.0", "pydantic>=2.12")
    assert error.message == "`gradio` wants pydantic<2.12, and kit.toml asks for pydantic>=2.12"
    assert error.hint == "`gradio==5.0` is the newest that fits; nothing was written"


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("nosuch", "there is no package `nosuch`: the package index does not have it"),
        ("einops==99", "the package index has no release `einops==99`"),
        ("einops<0.1", "the package index has no release `einops<0.1`"),
        ("flash", "`flash==2.0` has no wheel for Python 3.10, 3.11 on linux x86_64"),
        ("needs-flash", "`flash==2.0`, which `needs-flash` needs, has no wheel for Python 3.10, 3.11 on linux x86_64"),
        ("newer", "`newer` wants Python >=3.12, and the image `torch2.6-cu124` can have Python 3.10, 3.11"),
        ("withdrawn", "`withdrawn==1.0` was withdrawn by its authors: it was broken"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(lock: Lock, package: str, said: str) -> None:
    error = _fails(lock, "einops>=0.8", package) if "einops" not in package else _fails(lock, package)
    assert error.message == said
    assert error.hint


def test_a_strangers_index_has_only_what_the_usual_one_lacks(lock: Lock, world: Path) -> None:
    other = (world / "other").as_uri()
    assert "there is no package `stranger`" in _fails(lock, "stranger").message
    found = lock("stranger", "both", indexes=(other,))
    assert {p.name: (p.version, p.index) for p in found.packages} == {
        "stranger": ("1.0", other),
        "both": ("1.0", ""),
    }
    assert lock("stranger", "both", indexes=(other,), present=found) is found
    brought = lock("needs-stranger", indexes=((world / "nothing").as_uri(), other))
    assert {p.name: p.index for p in brought.packages} == {"needs-stranger": "", "stranger": other, "both": ""}
    assert other in _fails(lock, "nosuch", indexes=(other,)).message
    assert _versions(lock("einops", indexes=(other,), present=found)) == {"einops": "0.8.1"}


def test_an_index_that_does_not_answer(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(NetworkError, match=r"does not answer as it should, so .*kit\.lock was not written"):
        lock("einops")


@pytest.mark.parametrize("fault", ["breaks off in a page", "breaks off in a wheel", "refuses", "is overloaded"])
def test_an_index_that_dies_half_way(
    lock: Lock, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    class Index(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            is_page = self.path.endswith("/einops/")
            if fault == "refuses":
                self.send_error(403)
            elif fault == "is overloaded":
                self.send_error(503)
            elif is_page and fault == "breaks off in a page":
                self._break_off()
            elif is_page and fault == "breaks off in a wheel":
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(
                    b'<!DOCTYPE html><a href="/einops-9.0-py3-none-any.whl">einops-9.0-py3-none-any.whl</a>'
                )
            elif self.path.endswith("einops-9.0-py3-none-any.whl"):
                self._break_off()
            else:
                super().do_GET()

        def _break_off(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", "10000")
            self.end_headers()
            self.wfile.write(b"PK")
            self.wfile.flush()
            self.connection.close()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(world / "index"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        with pytest.raises(KitError) as caught:
            lock("einops")
        server.shutdown()
    assert isinstance(caught.value, NetworkError), caught.value.details


def test_what_an_index_of_kits_configuration_is_asked(lock: Lock, monkeypatch: pytest.MonkeyPatch, world: Path) -> None:
    from kit.network import read_settings

    monkeypatch.delenv("UV_DEFAULT_INDEX")
    settings = read_settings(configured_index=(world / "index").as_uri(), environment=os.environ)
    assert _versions(lock("einops", network=settings)) == {"einops": "0.8.1"}


@pytest.mark.parametrize("text", ["einops @ git+https://git.example/einops", "einops @ https://a.example/e-1.whl"])
def test_addresses_are_refused(lock: Lock, text: str) -> None:
    with pytest.raises(BadInputError, match=r"kit\.lock names wheels of an index"):
        lock(text)


# The project itself.


def _pyproject(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def test_the_projects_own_dependencies_are_locked(lock: Lock, tmp_path: Path) -> None:
    _pyproject(tmp_path, '[project]\nname = "mine"\nversion = "1"\ndependencies = ["einops"]\n')
    assert _versions(lock("gradio==5.0", project=True)) == {"einops": "0.8.1", "gradio": "5.0"}
    assert _versions(lock("gradio==5.0")) == {"gradio": "5.0"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no"),
        ("[tool.x]\n", r"no table \[project\]"),
        ('[project]\ndynamic = ["dependencies"]\n', "the dependencies are dynamic"),
        ("[project]\ndependencies = 3\n", "not a list of texts"),
        ('[project]\ndependencies = ["-r more.txt"]\n', "an option of pip's"),
        ('[project]\ndependencies = ["Ein_ops"]\n[tool.uv.sources]\nein-ops = {path = "x"}\n', "not from the package"),
    ],
)
def test_a_pyproject_that_does_not_say_what_it_needs(lock: Lock, tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        _pyproject(tmp_path, text)
    with pytest.raises(BadInputError, match=said):
        lock(project=True)


# Whether a lock is up to date.


def _declared(folder: Path, **changes: Any) -> Declared:
    return Declared(**{"folder": folder, "image": "torch2.6-cu124", "packages": ("einops",), **changes})


def test_a_lock_is_up_to_date_until_what_it_is_of_changes(
    lock: Lock, catalog: Catalog, tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lock("einops")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "file:///nonexistent")  # nobody is asked
    for same in ({}, {"packages": (" einops ",)}, {"env": (("A", "b"),)}, {"check": "true"}, {"ports": ("80",)}):
        assert differences(catalog, _declared(tmp_path, **same), found) == []
    for other in ({"packages": ("einops", "x")}, {"system": ("ffmpeg",)}, {"indexes": ("https://i.example",)}):
        (line,) = differences(catalog, _declared(tmp_path, **other), found)
        assert "what kit.toml asks for has changed" in line
    assert differences(catalog, _declared(tmp_path, image="torch2.4"), found) == [
        "`torch2.4` is asked for, and the lock is for `torch2.6-cu124`"
    ]
    moved = dataclasses.replace(found, image_lock="sha256:0")
    assert differences(catalog, _declared(tmp_path), moved) == ["the lock of the image `torch2.6-cu124` has changed"]
    gone = dataclasses.replace(found, image="torch9.9-cu124")
    assert differences(catalog, _declared(tmp_path), gone) == [
        "its image `torch9.9-cu124` is not in this kit's catalog"
    ]


def test_the_projects_own_dependencies_are_part_of_what_is_asked_for(tmp_path: Path) -> None:
    _pyproject(tmp_path, '[project]\nversion = "1"\ndependencies = ["einops"]\n')
    before = inputs_hash(_declared(tmp_path, project=True))
    _pyproject(tmp_path, '[project]\nversion = "2"\ndependencies = ["einops"]\n')
    assert inputs_hash(_declared(tmp_path, project=True)) == before
    _pyproject(tmp_path, '[project]\nversion = "2"\ndependencies = ["einops>1"]\n')
    assert inputs_hash(_declared(tmp_path, project=True)) != before


def test_an_image_without_a_lock(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "images_dir", lambda: tmp_path)
    with pytest.raises(KitError, match="is missing"):
        solve(catalog, _declared(tmp_path), catalog.find("torch2.6-cu124"), present=None)
