"""What `kit engine down --purge` says and wants before anything is deleted."""

import os
from types import SimpleNamespace

import pytest

from kit.engine.container import from_inspect
from kit.engine.usage import Stored, Usage
from kit.errors import EngineError
from tests.fake_docker import container


@pytest.fixture
def purged(monkeypatch, tmp_path):
    """What `daemon.down` was called with; the engine's folder is there."""
    calls = []
    monkeypatch.setenv("KIT_ENGINE_DIR", str(tmp_path))
    monkeypatch.setattr("kit.private_engine.daemon.down", lambda **words: calls.append(words["purge"]) or True)
    return calls


@pytest.fixture
def engine(monkeypatch):
    """A private engine that is up: a container of alice's runs, another has ended."""
    raw = [container("kit-a"), container("kit-b", state={"Status": "exited"}), container("db", labels={})]
    raw[2]["Config"]["Labels"] = {}
    uid = os.getuid()
    volumes = [f"kit-{uid}-x-home", "kit-4294000000-x-home", "db", "kit-made-kit-tf-cpu-latest"]
    found = SimpleNamespace(
        all_containers=lambda: [from_inspect(each) for each in raw],
        usage=Usage(
            images=(Stored(name="kit/tf-cpu:latest", size=1, is_used=True),),
            volumes=tuple(Stored(name=name, size=10**9, is_used=False) for name in volumes),
        ),
        raw=raw,
    )
    monkeypatch.setattr("kit.engine.find.private", lambda: found)
    return found


def test_it_says_whose_things_go_and_yes_is_not_enough_while_any_runs(kit, engine, purged):
    result = kit("--yes", "engine", "down", "--purge")
    assert result.code == 2
    assert "  running: kit-a (alice), db (not kit's)" in result.err.splitlines()
    assert "  stopped: kit-b (alice)" in result.err
    assert "  images: kit/tf-cpu:latest" in result.err
    assert "volumes of UID 4294000000: 1, 1.0 GB" in result.err
    assert "volumes of nobody known: 1" in result.err
    assert "error: 2 containers run in the private engine" in result.err
    assert purged == []


def test_force_is_more_than_yes_and_not_instead_of_it(kit, engine, purged):
    assert kit("engine", "down", "--purge", "--force").code != 0, "it asks, and there is nobody"
    assert purged == []
    assert kit("--yes", "engine", "down", "--purge", "--force").code == 0
    assert purged == [True]


def test_yes_is_enough_where_nothing_runs(kit, engine, purged):
    del engine.raw[2], engine.raw[0]
    assert kit("--yes", "engine", "down", "--purge").code == 0
    assert purged == [True]


def test_an_engine_that_is_not_up_or_does_not_say_is_deleted_all_the_same(kit, engine, purged, monkeypatch):
    def usage(_):
        raise EngineError("its disk has failed")

    engine.raw.clear()
    broken = type("Broken", (), {"usage": property(usage), "all_containers": lambda _: []})()
    monkeypatch.setattr("kit.engine.find.private", lambda: broken)
    assert "does not say which" in kit("--yes", "engine", "down", "--purge").err
    monkeypatch.setattr("kit.engine.find.private", lambda: None)
    result = kit("--yes", "engine", "down", "--purge")
    assert "whose containers, images and volumes it has is not known" in result.err
    assert purged == [True, True]


def test_without_purge_nothing_is_asked(kit, engine, purged):
    assert kit("engine", "down").code == 0
    assert purged == [False]
