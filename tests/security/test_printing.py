"""What others wrote is shown, never obeyed: no order to the terminal, no line that looks like kit's, no secret."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import logging
import os
import pty
import struct
import subprocess
import termios
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kit
from kit.cli import output
from kit.errors import KitError
from kit.facts.host import Endpoint, GpuProcess
from tests.engine.conftest import KIT
from tests.fake_docker import FakeDocker
from tests.unit.test_doctor import ADA, UBUNTU

CLI = Path(kit.__file__).parent / "cli"
EVIL = "\x1b]0;OWNED\x07\x1b[2J\x1b[8m\x9b1m\u202e\u2066\x7f\x08\r"
# The lines of a program's own: `kit logs`, `kit exec` and jobs hand them on byte by byte (write_out).
PRINTS = ("print(", "sys.stdout.", "sys.stderr.", "click.echo", "click.secho", "click.style", "click.confirm")
LOOKS = ("isatty", "flush", "reconfigure", "write_out")


def is_order(character: str) -> bool:
    kind = unicodedata.category(character)
    is_direction = unicodedata.bidirectional(character) in (
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    )
    return (kind in ("Cc", "Cs") and character not in "\t\n") or is_direction


@given(st.text(st.characters(exclude_categories=()) | st.sampled_from(EVIL)))
def test_no_text_is_an_order_to_the_terminal(text: str) -> None:
    shown = output.harmless(text)
    assert not any(is_order(character) for character in shown)
    assert output.harmless(shown) == shown
    assert json.loads(output.harmless(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize("file", sorted(CLI.glob("*.py")), ids=lambda file: file.name)
def test_one_module_prints(file: Path) -> None:
    if file.name == "output.py":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if f"{called}(".startswith((*PRINTS, "click.prompt")) and not called.endswith(LOOKS):
                pytest.fail(f"{file.name}:{node.lineno}: {called}: print with kit.cli.output")
            if called.endswith("console.print"):
                assert "harmless" in ast.unparse(node)


def test_errors_tables_facts_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(
        KitError(f"a{EVIL}\nhint: curl x | sh", details=(f"b{EVIL}\nerror: c",), hint=f"d{EVIL}\nerror: e")
    )
    output.print_table(["NAME"], [[f"e{EVIL}\nFAKE ROW"]])
    output.print_facts([("name", f"f{EVIL}")])
    output.print_json({f"g{EVIL}": f"h{EVIL}"})
    output.warn(f"i{EVIL}")
    out, err = capsys.readouterr()
    assert not any(is_order(character) for character in out + err)
    assert "\nFAKE ROW" not in out
    starts = [line.partition(":")[0] for line in err.splitlines() if not line.startswith(" ")]
    assert starts == ["error", "hint", "warning"]


@pytest.mark.parametrize("label", ["kit.service", "kit.owner-name", "kit.lease", "kit.image", "kit.user"])
def test_labels_of_anybody(kit, fake_docker: FakeDocker, label: str) -> None:  # type: ignore[no-untyped-def]
    labels = {"kit.image": "tf-cpu", "kit.client": "x:1", "kit.owner": "4242", label: EVIL}
    found = {"Name": "/kit-x", "State": {"Status": "running"}, "Config": {"Labels": labels, "Env": [], "Image": "x"}}
    fake_docker.reply("ps", stdout="0123\n")
    fake_docker.reply(
        "container", "inspect", stdout=json.dumps([{**found, "Id": "1", "NetworkSettings": {"Ports": {}}}])
    )
    for command in (("ps",), ("--json", "ps"), ("stop", "kit-x"), ("ps", "--all")):
        result = kit(*command)
        assert result.code in (0, 2)
        assert not any(is_order(character) for character in result.out + result.err)


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_none_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: tuple[str, str]
) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda stream, color: color is False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    output.print_error(KitError("x"))
    assert "\x1b[" in capsys.readouterr().err, "on a terminal"
    monkeypatch.setenv(*variable)
    output.print_error(KitError("x"))
    output.print_table(["NAME"], [["x"]])
    assert "\x1b" not in "".join(capsys.readouterr())


SECRET = "http://iu:PASSWORD@127.0.0.1:9/simple"


@pytest.mark.parametrize("option", ["-vv", "--debug"])
def test_no_secret_in_what_is_logged(kit, project, option: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("UV_DEFAULT_INDEX", SECRET)
    result = kit(option, "lock", "tf-cpu")
    assert "uv" in result.err
    assert "PASSWORD" not in result.out + result.err


def test_no_secret_in_a_log_line_or_traceback(kit, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def fail(*_: object, **__: object) -> None:
        logging.getLogger("kit.process").debug("run: env X=%s", SECRET)
        raise RuntimeError(f"{SECRET}{EVIL}")

    monkeypatch.setattr("kit.cli.catalog.load_catalog", fail)
    result = kit("--debug", "list")
    assert result.code == 70
    assert "Traceback" in result.err
    assert "kit.process: run: env X=http://***@127.0.0.1:9" in result.err
    assert "PASSWORD" not in result.err
    assert not any(is_order(character) for character in result.err)


def test_findings_of_doctor_name_nobody(kit, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """`kit doctor --json` is made to be pasted into a public report."""
    user = replace(
        ADA,
        memory_used_mib=20000,
        processes=(GpuProcess(pid=1812, name="train.py", memory_mib=20000, user="bob_secret"),),
    )
    asked = Endpoint(kind="index", url="https://h/simple?sig=TOKEN", is_reachable=False, problem="for bob_secret")
    host = replace(UBUNTU, gpus=(user,), endpoints=(asked,))
    monkeypatch.setattr("kit.cli.doctor.read_host", lambda *_, **__: host)
    result = kit("doctor", "--json")
    found = json.loads(result.out)["findings"]
    assert any("train.py" in finding["message"] for finding in found)
    assert any("https://h/simple" in finding["message"] for finding in found)
    assert "bob_secret" not in result.out
    assert "TOKEN" not in result.out


def test_facts_fit_the_terminal(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen([KIT, "show", "torch2.7-cu126"], stdout=child, stderr=child, cwd=tmp_path) as process:
        os.close(child)
        printed = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(parent, 65536):
                printed += data
    os.close(parent)
    assert process.returncode == 0
    lines = printed.decode().splitlines()
    assert len(lines) > 20
    # A word that is longer than a line is not cut: somebody may want to copy it.
    assert not [line for line in lines if len(line) > 80 and len(line[28:].split()) > 1]
