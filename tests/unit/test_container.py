import time

import pytest

from kit.engine.container import from_inspect, from_list


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ("Up 2 hours (healthy)", 7200),
        ("Up Less than a second (health: starting)", 1),
        ("Up About a minute", 60),
        ("Up About an hour", 3600),
        ("Exited (137) 3 days ago", 3 * 86400),
        ("Up 2 weeks (Paused)", 14 * 86400),
    ],
)
def test_since_when_the_list_says(status: str, seconds: int) -> None:
    assert time.time() - from_list({"Status": status}).since == pytest.approx(seconds, abs=2)


def test_a_list_that_does_not_say_has_when_it_was_made() -> None:
    assert from_list({"Status": "Created", "Created": 1700000000}).since == 1700000000
    assert from_list({"Status": 5, "Created": "x"}).since == 0


@pytest.mark.parametrize(
    ("said", "since"),
    [
        ("2026-11-21T06:00:00.123456789Z", 1795240800),
        ("2026-11-21T14:00:00.1+08:00", 1795240800),
        ("2026-11-21 14:00:00.123 +0800 CST", 1795240800),  # Podman 3
        ("0001-01-01T00:00:00Z", 0),
        ("2026-13-45T99:00:00Z", 0),
        ("soon", 0),
        (None, 0),
    ],
)
def test_since_when_an_engine_says_in_full(said: object, since: int) -> None:
    assert from_inspect({"State": {"Status": "running", "StartedAt": said}}).since == since
    assert from_inspect({"State": {"Status": "exited", "FinishedAt": said, "StartedAt": ""}}).since == since


def test_what_runs_and_where() -> None:
    mounts = [
        {"Source": "/etc/x", "Destination": "/etc/passwd"},
        {"Source": "/srv/a b", "Destination": "/workspace"},
    ]
    found = from_list({"Command": "/usr/bin/tini -g -- /opt/kit/run python -c 'print(1)'", "Mounts": mounts})
    assert (found.command, found.folder) == ("python -c 'print(1)'", "/srv/a b")
    found = from_inspect({"Config": {"Cmd": ["python", "x.py"]}, "Mounts": mounts})
    assert (found.command, found.folder) == ("python x.py", "/srv/a b")
    assert from_list({"Mounts": "x", "Command": None}).folder == ""
