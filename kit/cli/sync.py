"""`kit sync` and `kit fetch`: this folder to a host, and results home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kit.cli.defaults import include_option
from kit.cli.options import Folder, Options, host_option, json_option
from kit.cli.output import ask, count, print_json, say, show
from kit.cli.sending import SyncDisplay, amount, listed, some, tell_sent
from kit.errors import BadInputError
from kit.remote import ssh, sync
from kit.remote.sync.rsync import in_line

if TYPE_CHECKING:
    from kit.remote.ssh import Connection
    from kit.remote.sync import Synced

Command = TypeVar("Command", bound=Callable[..., Any])


def _place_options(command: Command) -> Command:
    """The options that say which folder here and which there."""
    folder = click.option(
        "-C",
        "--folder",
        type=Folder(),
        default=".",
        help="The folder here.  [default: the current one]",
    )
    remote = click.option(
        "--remote-folder",
        default="",
        metavar="PATH",
        help="The folder there.  [default: one in ~/kit-workspaces for each folder here]",
    )
    return folder(remote(command))


@click.command("sync")
@click.argument("paths", nargs=-1)
@_place_options
@include_option
@click.option("--delete", is_flag=True, help="Delete there what is not here, but for what git ignores. Asks first.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--force", is_flag=True, help="Send even the home directory, or one above it.")
@host_option
@json_option
@click.pass_obj
def sync_command(
    options: Options,
    *,
    paths: tuple[str, ...],
    folder: Path,
    include: tuple[str, ...],
    remote_folder: str,
    delete: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Send this folder to a host, or what has changed in it since.

    Everything goes but `.git` and what git ignores, which is said; `--include`, `include` in kit.toml and the lines
    of a file `.kitinclude` send that too. PATHS are files and folders as seen from the folder: these alone go, ignored
    or not. What is newer there stays as it is. `kit run --host` does this by itself.
    """
    connection = _connected(options, "kit sync")
    with SyncDisplay(options, f"sending {folder.name}", names=dry_run) as (progress, stop):

        def may_delete(names: Sequence[str]) -> bool:
            if not options.yes:
                stop()
                show(f"on {options.host}, and not here:", err=True)
                for line in some(names):
                    show(f"  {line}", err=True)
                ask(f"Delete {count(len(names), 'file or folder', 'files and folders')}?")
            return True

        done = sync.push(
            connection,
            folder,
            names=paths,
            include=include,
            remote_folder=remote_folder,
            delete=delete,
            dry_run=dry_run,
            force=force,
            may_delete=may_delete,
            progress=progress,
        )
    tell_sent(options, done, dry_run=dry_run)
    _print_json(options, done)


@click.command("fetch")
@click.argument("paths", nargs=-1)
@_place_options
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be fetched.")
@host_option
@json_option
@click.pass_obj
def fetch_command(options: Options, *, paths: tuple[str, ...], folder: Path, remote_folder: str, dry_run: bool) -> None:
    """Bring home what a host has that is new or changed there: checkpoints, logs, notebooks.

    PATHS are files and folders as seen from the folder; without them all comes, what git ignores too, but for caches
    and what was deleted here. What is newer here stays as it is; nothing is deleted.
    """
    connection = _connected(options, "kit fetch")
    with SyncDisplay(options, f"fetching {folder.name}", names=dry_run) as (progress, _):
        done = sync.fetch(connection, folder, paths, remote_folder=remote_folder, dry_run=dry_run, progress=progress)
    there = f"{options.host}:{done.remote_folder}"
    if done.sent_files:
        say(options, f"{'would fetch' if dry_run else 'fetched'} {amount(done)} from {there} in {done.seconds:.1f} s")
    else:
        say(options, f"nothing new in {there}")
    if done.kept_newer:
        say(
            options,
            f"kept {count(len(done.kept_newer), 'file that is', 'files that are')} newer here: "
            f"{listed(done.kept_newer)}; `kit sync` sends them",
        )
    if done.put_aside:
        say(
            options,
            f"changed here as well, and older: {listed(done.put_aside)}; what was here is in files whose names end in "
            f"`{done.aside}`",
        )
    _print_json(options, done)


def _connected(options: Options, command: str) -> Connection:
    if not options.host:
        raise BadInputError(
            f"{command} is for a folder on another machine, and none was named",
            hint=f"`{command} --host USER@SERVER`, or KIT_HOST",
        )
    return ssh.connect(options.host)


def _print_json(options: Options, done: Synced) -> None:
    if options.json:
        names = ("kept_newer", "put_aside", "deleted")
        data = {key: [in_line(n) for n in value] if key in names else value for key, value in asdict(done).items()}
        left_out = [{**asdict(one), "path": in_line(one.path)} for one in done.left_out]
        print_json({"host": options.host, **data, "left_out": left_out})
