"""`kit sync` and `kit fetch`: this folder to a host, and results home."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kit.cli import Options, host_option, json_option
from kit.cli.live import LiveLine

if TYPE_CHECKING:
    from kit.ssh import Connection
    from kit.sync import Progress, Synced

Command = TypeVar("Command", bound=Callable[..., Any])
# How often a line says how far it is where no terminal shows it.
PLAIN_EVERY_S = 10.0
SHOWN = 5


def _place_options(command: Command) -> Command:
    """The options that say which folder here and which there."""
    folder = click.option(
        "-C",
        "--folder",
        type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
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
@_place_options
@click.option("--delete", is_flag=True, help="Delete there what is not here, but for what git ignores. Asks first.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--force", is_flag=True, help="Send even the home directory, or one above it.")
@host_option
@json_option
@click.pass_obj
def sync_command(
    options: Options, *, folder: Path, remote_folder: str, delete: bool, dry_run: bool, force: bool
) -> None:
    """Send this folder to a host, or what has changed in it since.

    Everything goes but `.git` and what git ignores. What is newer there stays as it is. `kit run --host` does this
    by itself.
    """
    from kit import sync

    connection = _connected(options, "kit sync")
    with SyncDisplay(options, f"sending {folder.name}", names=dry_run) as (progress, stop):

        def may_delete(names: Sequence[str]) -> bool:
            if not options.yes:
                stop()
                click.echo(f"on {options.host}, and not here:", err=True)
                for line in _some(names):
                    click.echo(f"  {line}", err=True)
                click.confirm(
                    f"Delete {_count(len(names), 'file or folder', 'files and folders')}?", abort=True, err=True
                )
            return True

        done = sync.push(
            connection,
            folder,
            remote_folder=remote_folder,
            delete=delete,
            dry_run=dry_run,
            force=force,
            may_delete=may_delete,
            progress=progress,
        )
    _tell_sent(options, done, dry_run=dry_run)
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
    from kit import sync
    from kit.cli.output import say

    connection = _connected(options, "kit fetch")
    with SyncDisplay(options, f"fetching {folder.name}", names=dry_run) as (progress, _):
        done = sync.fetch(connection, folder, paths, remote_folder=remote_folder, dry_run=dry_run, progress=progress)
    there = f"{options.host}:{done.remote_folder}"
    if done.sent_files:
        say(options, f"{'would fetch' if dry_run else 'fetched'} {_amount(done)} from {there} in {done.seconds:.1f} s")
    else:
        say(options, f"nothing new in {there}")
    if done.kept_newer:
        say(
            options,
            f"kept {_count(len(done.kept_newer), 'file that is', 'files that are')} newer here: "
            f"{_listed(done.kept_newer)}; `kit sync` sends them",
        )
    if done.put_aside:
        say(
            options,
            f"changed here as well, and older: {_listed(done.put_aside)}; what was here is in files whose names end in "
            f"`{done.aside}`",
        )
    _print_json(options, done)


def send_folder(options: Options, connection: Connection, folder: Path) -> str:
    """Send a folder to its own place on the host, as `kit sync` does; returns the path there."""
    from kit import sync

    with SyncDisplay(options, f"sending {folder.name}") as (progress, _):
        done = sync.push(connection, folder, progress=progress)
    _tell_sent(options, done)
    return done.remote_folder


def _connected(options: Options, command: str) -> Connection:
    from kit import ssh
    from kit.errors import BadInputError

    if not options.host:
        raise BadInputError(
            f"{command} is for a folder on another machine, and none was named",
            hint=f"`{command} --host USER@SERVER`, or KIT_HOST",
        )
    return ssh.connect(options.host)


def _tell_sent(options: Options, done: Synced, *, dry_run: bool = False) -> None:
    from kit.cli.output import say

    there = f"{options.host}:{done.remote_folder}"
    if done.deleted:
        what = _count(len(done.deleted), "file or folder", "files and folders")
        say(options, f"{'would delete' if dry_run else 'deleted'} {what} there: {_listed(done.deleted)}")
    if done.sent_files:
        say(options, f"{'would send' if dry_run else 'sent'} {_amount(done)} to {there} in {done.seconds:.1f} s")
    else:
        say(options, f"nothing new to send: {there} has it all")
    if done.kept_newer:
        say(
            options,
            f"kept {_count(len(done.kept_newer), 'file that was', 'files that were')} changed there and newer: "
            f"{_listed(done.kept_newer)}; `kit fetch` brings them here",
        )
    if done.put_aside:
        say(
            options,
            f"changed there as well, and older: {_listed(done.put_aside)}; what was there is in "
            f"{options.host}:{done.aside}",
        )


def _print_json(options: Options, done: Synced) -> None:
    if options.json:
        from dataclasses import asdict

        from kit.cli.output import print_json
        from kit.sync.rsync import in_line

        names = ("kept_newer", "put_aside", "deleted")
        data = {key: [in_line(n) for n in value] if key in names else value for key, value in asdict(done).items()}
        print_json({"host": options.host, **data})


def _amount(done: Synced) -> str:
    from kit.sync.rsync import in_bytes

    return f"{_count(done.sent_files, 'file', 'files')} ({in_bytes(done.sent_bytes)})"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _some(names: Sequence[str]) -> list[str]:
    from kit.sync.rsync import in_line

    shown = [in_line(name) for name in names[:SHOWN]]
    return [*shown, *([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_some(names))


class SyncDisplay(LiveLine):
    """Shows one sync on stderr: a live line on a terminal, now and then a plain one elsewhere."""

    def __init__(self, options: Options, title: str, *, names: bool = False) -> None:
        super().__init__(options, title)
        self.title, self.names = title, names
        self.said = time.monotonic()

    def __enter__(self) -> tuple[Progress, Callable[[], None]]:
        from kit.sync import Progress

        self.start()
        status = None if self.options.quiet else self.status
        return Progress(message=self.message, status=status, item=self.item), self.stop

    def item(self, name: str) -> None:
        if self.names and not self.options.json:
            click.echo(name)

    def status(self, text: str) -> None:
        self.update(f"{self.title}  {text}")
        if not self.is_live and time.monotonic() - self.said > PLAIN_EVERY_S:
            self.said = time.monotonic()
            click.echo(f"{self.title}  {text}", err=True)
