import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import paths


def test_write_text_makes_folders_and_sets_the_mode(tmp_path):
    file = tmp_path / "a/b/file"
    paths.write_text(file, "grüße\n", mode=0o600)
    assert file.read_bytes() == "grüße\n".encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    paths.write_text(file, "again")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=50))
def test_write_text_writes_what_it_is_given(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("write") / "file"
    paths.write_text(file, text)
    assert file.read_bytes() == text.encode()


@pytest.mark.parametrize("broken", [(Path, "replace"), (os, "fchmod")])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, broken):
    file = tmp_path / "file"
    file.write_text("old")

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(*broken, interrupt)
    with pytest.raises(KeyboardInterrupt):
        paths.write_text(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        paths.write_text(file, "\ud800")
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_checkout_has_templates_and_catalog():
    assert paths.is_checkout()
    assert (paths.templates_dir() / "base.Dockerfile.j2").is_file()
    assert (paths.catalog_dir() / "frameworks.toml").is_file()


def test_kit_root_moves_images_and_templates(monkeypatch, tmp_path):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    paths.root_dir.cache_clear()
    assert [paths.images_dir(), paths.templates_dir(), paths.compose_dir()] == [
        tmp_path / "images",
        tmp_path / "templates",
        tmp_path / "compose",
    ]


@pytest.mark.parametrize(
    ("place", "variable", "fallback"),
    [
        (paths.cache_dir, "XDG_CACHE_HOME", ".cache/kit"),
        (paths.state_dir, "XDG_STATE_HOME", ".local/state/kit"),
    ],
)
def test_folders_follow_the_xdg_specification(monkeypatch, place, variable, fallback):
    assert place() == Path.home() / fallback
    monkeypatch.setenv(variable, "/elsewhere")
    assert place() == Path("/elsewhere/kit")
    monkeypatch.setenv(variable, "relative")
    assert place() == Path.home() / fallback


def test_engine_dir_can_be_moved(monkeypatch):
    monkeypatch.setenv("KIT_ENGINE_DIR", "/data/engine")
    assert paths.engine_dir() == Path("/data/engine")
    monkeypatch.delenv("KIT_ENGINE_DIR")
    assert paths.engine_dir() == Path("/var/lib/kit")
