"""`kit init`, `add`, `remove`, `diff` and `keep`: a project's own environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kit import config
from kit.cli import complete
from kit.cli.arguments import user_option
from kit.cli.lock import lock_ask
from kit.cli.options import Command, Options, host_option, json_option
from kit.cli.output import ask, count, picked, print_json, print_table, say
from kit.cli.screen import CommandScreen
from kit.cli.trust import see_to_trust
from kit.environment.declared import FILE, Declared, declared
from kit.environment.format import LOCK_NAME
from kit.errors import BadInputError, KitError
from kit.project import add, diff, init, keep
from kit.project.example import copy_example
from kit.project.lock import lock_project

if TYPE_CHECKING:
    from kit.project.add import Changed
    from kit.project.diff import Added


class SystemWords(click.Command):
    """A command that takes the words after `--system`, up to the next option, for packages of the distribution."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        is_system = False
        for word in args:
            if word == "--system":
                is_system = True
            elif is_system and not word.startswith("-"):
                given.append(f"--system={word}")
            else:
                is_system = False
                given.append(word)
        named = any(word.startswith("--system=") for word in given)
        if "--system" in args and not named and not ctx.resilient_parsing:
            raise BadInputError("--system names no package", hint=f"for example `{ctx.command_path} --system ffmpeg`")
        return super().parse_args(ctx, given)


def _system_option(help: str) -> Callable[[Command], Command]:
    return click.option("--system", multiple=True, metavar="PACKAGE...", help=help)


@click.command("init")
@click.argument("image", required=False, default="", shell_complete=complete.images)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take over what this file asks for: requirements.txt, environment.yml, pyproject.toml, uv.lock, pylock.toml, "
    "poetry.lock, Pipfile, cog.yaml, build.envd, a Dockerfile or a notebook.",
)
@click.option(
    "--example",
    default="",
    metavar="NAME",
    shell_complete=complete.examples,
    help="Copy an example that comes with kit into this folder instead.",
)
@host_option
@json_option
@click.pass_obj
def init_command(options: Options, *, image: str, source: Path | None, example: str) -> None:
    """Make this folder a project with an environment of its own: write a kit.toml.

    IMAGE is what it stands on: an image (`kit list`), or a wish such as `torch` or `torch>=2.6`, which `kit lock` turns
    into one. Without it, it is the image that `kit resolve torch` names for this machine. A kit.toml that is there
    without an environment gets one, and stays as it is else.

    With --from the kit.toml has what another tool's file asks for, as far as an environment can, and the image that
    this means; each line that it cannot have is printed with the reason. Then it is locked.
    """
    if example:
        _copy_example(options, example, beside=image or source)
        return
    made = init.init(Path.cwd(), image, CommandScreen(options), target=options.host, source=source)
    if options.json:
        left = [picked(line, "line", "text", "reason") for line in made.left]
        print_json({**picked(made, "image", "chosen"), "file": str(made.file), "new": made.is_new, "left": left})
    else:
        chosen = f", which is {made.chosen}" if made.chosen != made.image else ""
        say(options, f"{made.file}: {'written' if made.is_new else 'the environment added'}, on {made.image}{chosen}")
        for line in made.left:
            say(options, f"{source}{f':{line.line}' if line.line else ''}: not taken over: {line.text}: {line.reason}")
        if made.above:
            say(options, f"note: {made.above} is no longer this folder's")
    if source:
        _lock_what_was_taken_over(options)
    elif not options.json:
        say(options, f"`kit add PACKAGE` adds to it; commit {FILE} and {LOCK_NAME}, and `kit run` starts it anywhere")


def _copy_example(options: Options, name: str, *, beside: object) -> None:
    if beside:
        raise BadInputError(f"--example {name} has all of its own", hint=f"leave out {beside}")
    copied = copy_example(name, Path.cwd())
    if options.json:
        print_json({"example": name, "files": [str(file) for file in copied]})
    say(options, f"copied: {', '.join(file.name for file in copied)}")


def _lock_what_was_taken_over(options: Options) -> None:
    """The lock of a new kit.toml; without a solution the file stays, for its user to change."""
    try:
        lock = _solver(options)(_reader(options)())
    except KitError:
        say(options, f"{FILE} is written and not locked: change it (`kit add`, `kit remove`, by hand), then `kit lock`")
        raise
    _say_locked(options, lock.image, len(lock.packages))


@click.command("add", cls=SystemWords)
@click.argument("packages", nargs=-1)
@_system_option("Packages of Debian or Ubuntu: all words up to the next option.")
@host_option
@json_option
@click.pass_obj
def add_command(options: Options, *, packages: tuple[str, ...], system: tuple[str, ...]) -> None:
    """Add packages to the project's environment: to kit.toml and, solved beside what the image holds, to kit.lock.

    PACKAGES are as pip takes them, by name: `einops`, `"transformers>=4.50"`, `"jax[cpu]"`, with conditions too. One
    that is there already gets the new version. Where there is no solution, nothing is written. The next `kit run`
    builds what is new, in one layer on the image.
    """
    if not packages and not system:
        raise BadInputError("no package named", hint="`kit add einops`, or `kit add --system ffmpeg`")
    changed = add.add(_reader(options), packages, system, _solver(options), CommandScreen(options))
    _print_changed(options, changed)


@click.command("remove", cls=SystemWords)
@click.argument("packages", nargs=-1, shell_complete=complete.declared_packages)
@_system_option("Packages of Debian or Ubuntu: all words up to the next option.")
@host_option
@json_option
@click.pass_obj
def remove_command(options: Options, *, packages: tuple[str, ...], system: tuple[str, ...]) -> None:
    """Take packages out of the project's environment: out of kit.toml, and what only they needed out of kit.lock."""
    if not packages and not system:
        raise BadInputError("no package named", hint=f"those that stand in {FILE}; `kit rm` removes containers")
    changed = add.remove(_reader(options), packages, system, _solver(options), CommandScreen(options))
    _print_changed(options, changed)


@click.command("diff")
@click.argument("container", required=False, default="", shell_complete=complete.containers)
@user_option
@host_option
@json_option
@click.pass_obj
def diff_command(options: Options, *, container: str, user: str) -> None:
    """Show what `pip install` has added to the project's environment, and kit.lock has not.

    That is in the running container of this project, or in CONTAINER; where none runs, what the last ones left in their
    home folder.
    """
    found = diff.diff(_reader(options)(), container, target=options.host, user=user)
    if options.json:
        names = ("name", "version", "locked", "origin")
        packages = [{**picked(p, *names), "requested": p.is_requested} for p in found.packages]
        print_json({**picked(found, "image", "container", "volume"), "packages": packages})
        return
    if not found.packages:
        say(options, f"{found.container or 'what was installed'}: nothing beyond {LOCK_NAME}")
        return
    rows = [(p.name, p.version, ", ".join(p.locked) or "-", _why(p)) for p in found.packages]
    print_table(("PACKAGE", "HERE", "LOCKED", "WHY"), rows)
    say(options, f"`kit keep` makes it part of the project; `kit reset {found.image}` takes it out")


@click.command("keep")
@click.argument("container", required=False, default="", shell_complete=complete.containers)
@user_option
@host_option
@json_option
@click.pass_obj
def keep_command(options: Options, *, container: str, user: str) -> None:
    """Make what was tried by `pip install` part of the project: of kit.toml and kit.lock. Asks first.

    Of what `kit diff` shows it takes what was asked for by name, in the versions that are there; what that needs comes
    with it. What is from a folder or from git is in no package index, and is not kept.
    """
    found = diff.diff(_reader(options)(), container, target=options.host, user=user)
    wanted = keep.plan(found)
    if not options.json:
        for package in wanted.taken:
            say(options, f"to keep: {package.name} {package.version}{_instead_of(package)}")
        if wanted.follows:
            say(options, f"what they need: {', '.join(f'{p.name} {p.version}' for p in wanted.follows)}")
        for package, reason in wanted.left:
            say(options, f"not kept: {package.name} {package.version}: {reason}")
    left = [{**picked(package, "name", "version"), "reason": reason} for package, reason in wanted.left]
    if not wanted.taken:
        if options.json:
            print_json({"added": [], "left": left})
        say(options, f"{found.container or 'what was installed'}: nothing to keep")
        return
    if not options.yes:
        ask(f"Write {count(len(wanted.taken), 'package')} into {FILE} and {LOCK_NAME}?")
    changed = keep.keep(_reader(options), wanted, _solver(options), CommandScreen(options))
    _print_changed(options, changed, left=left)
    say(options, f"`kit reset {found.image}` takes out what pip installed; the next `kit run` has it from {LOCK_NAME}")


def _reader(options: Options) -> add.Read:
    """What reads the environment that the project declares, as its file says then; asked about where the file may be
    somebody else's, or reaches out.
    """

    def read() -> Declared:
        found = config.load()
        known = declared(found)
        if known is None:
            if found.project_file:
                raise BadInputError(
                    f"{found.project_file} has no environment",
                    hint=f"`kit init` in {found.project_file.parent} adds it",
                )
            raise BadInputError(
                f"there is no {FILE} for this folder", details=found.passed_over, hint="`kit init` writes one"
            )
        for key in dict.fromkeys(setting.key for setting in found.project if setting.key.startswith("environment.")):
            see_to_trust(found, key)
        return known

    return read


def _solver(options: Options) -> add.Solve:
    asked, screen = lock_ask(options), CommandScreen(options)
    return lambda wanted: lock_project(wanted, asked, screen)


def _print_changed(options: Options, changed: Changed, **more: Any) -> None:
    if options.json:
        added = [{**picked(e, "name", "text", "versions"), "in_image": e.is_in_image} for e in changed.added]
        lists = picked(changed, "image", "packages", "removed", "system_added", "system_removed")
        print_json({**lists, "file": str(changed.folder / FILE), "added": added, **more})
        return
    for entry in changed.added:
        versions = " or ".join(entry.versions)
        has = f"{changed.image} has {versions} already" if entry.is_in_image else versions
        say(options, f"added {entry.text}" + (f" ({has})" if has else ""))
    for name in changed.system_added:
        say(options, f"added {name}, of the distribution")
    for name in (*changed.removed, *changed.system_removed):
        say(options, f"removed {name}")
    if not changed.is_any:
        say(options, f"{changed.folder / FILE} has that already")
    _say_locked(options, changed.image, changed.packages)


def _say_locked(options: Options, image: str, packages: int) -> None:
    say(options, f"{LOCK_NAME}: {count(packages, 'package')} beside what {image} has; `kit run` starts it")


def _why(package: Added) -> str:
    if package.origin:
        return f"from {package.origin}"
    return "asked for" if package.is_requested else "came along"


def _instead_of(package: Added) -> str:
    return f", in place of {' or '.join(package.locked)}" if package.locked else ""
