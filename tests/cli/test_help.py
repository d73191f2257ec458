import subprocess
import sys

import click
import pytest

from kit import __version__
from kit.cli import COMMANDS, group
from kit.cli.options import Folder


def test_help_lists_every_command_and_imports_none_of_them():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kit", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = " ".join(done.stdout.split())  # long lines are broken
    assert " ".join(f"{name} {text}" for name, (_, text) in COMMANDS.items()) in listed
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "kit.cli" in loaded
    assert not {
        m for m in loaded if m.startswith(("kit.catalog", "kit.engine", "kit.image.build", "kit.run", "jinja2", "rich"))
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_its_own_options(kit, name):
    result = kit(name, "--help")
    assert result.code == 0
    assert result.err == ""
    assert result.out.startswith(f"Usage: kit {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    command = group.get_command(click.Context(group), name)
    assert command is not None
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for found in commands:
        assert found.help, f"{name} has no help"
        for option in found.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts[0]} has no help"


def test_version(kit):
    result = kit("--version")
    assert (result.code, result.out) == (0, f"kit, version {__version__}\n")


def test_without_a_command_the_help_is_shown(kit):
    result = kit()
    assert result.code == 2
    assert "Commands:" in result.err + result.out


def test_an_unknown_command_is_answered_with_the_nearest(kit):
    result = kit("lst")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        "error: no such command 'lst'. Did you mean `kit list`?",
        "hint: `kit --help` shows what it takes",
    ]


def test_a_command_like_no_other_has_no_suggestion(kit):
    result = kit("zzzzzz")
    assert result.err.splitlines()[0] == "error: no such command 'zzzzzz'."


@pytest.mark.parametrize(
    ("words", "near", "command"),
    [
        (["--jsn", "list"], "--json", "kit"),
        (["run", "--prot", "5", "tf-cpu"], "--port", "kit run"),
        (["build", "--no-cach"], "--no-cache", "kit build"),
        (["engine", "up", "--stor", "x"], "--store", "kit engine up"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(kit, words, near, command):
    result = kit(*words)
    assert result.code == 2
    first, second = result.err.splitlines()
    assert near in first
    assert second == f"hint: `{command} --help` shows what it takes"


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "--port", "70000", "tf-cpu"],
        ["run", "--port", "x", "tf-cpu"],
        ["run", "--folder", "/no/such", "tf-cpu"],
        ["run", "-e", "novalue", "tf-cpu"],
        ["run", "--mount", "/a", "tf-cpu"],
        ["run", "--mount", "/no/such:/x", "tf-cpu"],
        ["run", "--mount", "/tmp:relative", "tf-cpu"],
        ["build", "--base", "magic", "tf-cpu"],
        ["run", "--mount", "/tmp:/x:rx", "tf-cpu"],
        ["logs"],
        ["url"],
        ["logs", "-n", "-1", "x"],
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(kit, words):
    result = kit(*words)
    assert (result.code, result.out) == (2, "")
    assert [line.split(":")[0] for line in result.err.splitlines()] == ["error", "hint"]


def test_a_folder_is_looked_at_in_one_way():
    """One that may not be entered is said so, whatever the command."""
    found = [
        f"{name} {parameter.name}"
        for name in COMMANDS
        for parameter in group.get_command(click.Context(group), name).params
        if isinstance(parameter.type, click.Path) and not parameter.type.file_okay
        if not isinstance(parameter.type, Folder)
    ]
    assert not found
