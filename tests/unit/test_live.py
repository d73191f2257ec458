import pytest

from kit import network
from kit.cli.live import Drawn, LiveLine
from kit.cli.options import Options
from kit.cli.screen import BuildDisplay
from kit.image.buildlog import BuildLog


class Terminal:
    """A stderr that is a terminal and keeps what is written."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def fileno(self):
        raise OSError


@pytest.mark.parametrize(("term", "is_live"), [("xterm-256color", True), ("dumb", False)])
def test_a_dumb_terminal_gets_plain_lines(monkeypatch, term, is_live):
    terminal = Terminal()
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", terminal)
    line = LiveLine(Options(), "working")
    line.start()
    assert line.is_live == is_live
    line.stop()
    assert ("\x1b" in terminal.text) == is_live


def test_no_color_means_none_in_the_live_line_either(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stderr", terminal)
    line = LiveLine(Options(), "working")
    line.start()
    line.message("a line that stays")
    line.stop()
    assert "working" in terminal.text
    assert "\x1b[3" not in terminal.text.replace("\x1b[?25", "")


def test_the_clock_of_a_build_moves_without_news(monkeypatch):
    now, received = 100.0, 5 * 10**9
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("kit.network.received_bytes", lambda: received)
    display = BuildDisplay(Options(asked_host="local"), "tf-cpu")
    drawn = Drawn(display.now)
    assert str(drawn.__rich__()) == "tf-cpu  0:00  starting"
    now, received = 175.0, 6_200_000_000
    assert str(drawn.__rich__()) == "tf-cpu  1:15  1.2 GB received  starting"


def test_the_bytes_of_a_step_are_shown(monkeypatch):
    monkeypatch.setattr("kit.network.received_bytes", lambda: None)
    display = BuildDisplay(Options(asked_host="local"), "tf-cpu")
    log = BuildLog()
    log.feed('{"vertexes": [{"digest": "a", "name": "exporting to image", "started": "2026-11-21T06:00:00Z"}]}')
    log.feed('{"statuses": [{"vertex": "a", "id": "layer 1", "current": 1500000, "total": 3000000}]}')
    log.feed('{"statuses": [{"vertex": "a", "id": "layer 1", "current": 2500000, "total": 3000000}, {"vertex": "b"}]}')
    log.feed('{"statuses": [{"vertex": "a", "id": "x", "current": "1", "total": null}, 5]}')
    assert log.moved == 2_500_000
    display.log(log, [])
    assert display.now().endswith("  exporting to image · 2.5 MB")


def test_what_a_machine_received_is_that_of_its_way_out(monkeypatch, tmp_path):
    head = "Inter-|   Receive\n face |bytes\n"
    (tmp_path / "dev").write_text(head + "    lo: 900 1\n  eth0: 500 4\ndocker0: 70 1\n")
    (tmp_path / "route").write_text("Iface\tDestination\neth0\t00000000\t0\ndocker0\t000011AC\t0\n")
    monkeypatch.setattr(network, "ROUTES", tmp_path / "route")
    monkeypatch.setattr(network, "RECEIVED", tmp_path / "dev")
    assert network.received_bytes() == 500
    (tmp_path / "route").write_text("Iface\tDestination\n")
    assert network.received_bytes() is None
    monkeypatch.setattr(network, "RECEIVED", tmp_path / "none")
    assert network.received_bytes() is None
