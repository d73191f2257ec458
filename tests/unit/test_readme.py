"""The README: its commands, options and targets exist, and its tables are what the code says."""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest

from kit import errors, paths
from kit.catalog import load_catalog
from kit.cli import COMMANDS, group
from kit.decide import matrix
from kit.errors import KitError
from kit.run.prepare import is_command

ROOT = paths.root_dir()
PAGES = ("README.md", "CONTRIBUTING.md", "docs/remote.md", "docs/configuration.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")

each_page = pytest.mark.parametrize("page", PAGES)


def code(page: str) -> list[str]:
    """Every line of the page's code blocks, and every inline piece of code, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line.partition("#")[0].strip() for line in [*"\n".join(blocks).splitlines(), *inline]]


def kit_calls(page: str) -> list[list[str]]:
    calls = [shlex.split(line)[1:] for line in code(page) if re.match(r"(\.venv/bin/)?kit ", line)]
    return [call[2:] if call[0] == "--host" else call for call in calls]


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words after it."""
    words = [word for word in words if word not in ("--json", "--yes", "COMMAND")]
    command: click.Command = group
    context = click.Context(group)
    while isinstance(command, click.Group) and words:
        if command.name == "bench" and words[0] not in command.list_commands(context):
            words = ["image", *words]  # `kit bench NAME` stands for it
        found = command.get_command(context, words[0])
        assert found is not None, f"kit has no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@each_page
def test_kit_commands_and_their_options_exist(page: str) -> None:
    assert kit_calls(page)
    for call in kit_calls(page):
        command, rest = resolved(call)
        known = {option for parameter in command.params for option in parameter.opts}
        for word in rest:
            # After `run NAME` come the words of another program.
            if word.startswith("--") and command.name != "run":
                assert word.partition("=")[0] in known, f"kit {' '.join(call)}"


@each_page
def test_image_names_exist(page: str) -> None:
    catalog = load_catalog()
    for call in kit_calls(page):
        command, rest = resolved(call)
        takes_name = command.name in ("build", "run", "lock", "render", "show")
        if command.name == "run" and rest and is_command(rest[0]):  # in a project, which has an image
            continue
        if takes_name and rest and rest[0] != "NAME" and not rest[0].startswith("-"):
            assert catalog.find(rest[0])


@each_page
def test_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*(?:/%)?):", makefile, re.MULTILINE))
    called = [line.split()[1] for line in code(page) if line.startswith("make ")]
    assert called or page.startswith("docs/")
    for target in called:
        assert re.sub("/.*", "/%", target) in targets, target


@each_page
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


def test_table_of_images_is_the_catalogs() -> None:
    table = matrix.markdown_table(load_catalog())
    assert matrix.replace_table(README, table) == README, "`make readme` writes it"


def test_table_of_exit_codes_has_every_kind_of_error() -> None:
    table = README.partition("<!-- begin: exit codes -->")[2].partition("<!-- end: exit codes -->")[0]
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KitError)]
    assert listed == sorted({0, 2, 70, 129, 130, 143} | {kind.exit_code for kind in kinds})


def test_table_of_needs_has_every_command() -> None:
    table = README.partition("## What needs what")[2].partition("\n## ")[0]
    first_column = "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert set(COMMANDS) <= set(re.findall(r"`(?:kit )?([a-z]+)", first_column))


def test_make_help_lists_what_it_describes() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", ROOT], capture_output=True, text=True, check=True, timeout=60
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^([a-z][a-z/%-]*):.*## ", makefile, re.MULTILINE):
        assert re.search(rf"^  make {re.escape(target)} ", done.stdout, re.MULTILINE), target
