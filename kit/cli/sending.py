"""How a folder that goes to another machine, or comes from one, shows itself; and what is said of it afterwards."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence

from kit.cli.live import LiveLine
from kit.cli.options import Options
from kit.cli.output import count, say, show
from kit.remote.sync import LeftOut, Progress, Synced
from kit.remote.sync.rsync import in_bytes, in_line

# How often a line says how far it is where no terminal shows it.
PLAIN_EVERY_S = 10.0
SHOWN = 5


def tell_sent(options: Options, done: Synced, *, dry_run: bool = False) -> None:
    """What came of sending a folder, in lines."""
    there = f"{options.host}:{done.remote_folder}"
    if done.deleted:
        what = count(len(done.deleted), "file or folder", "files and folders")
        say(options, f"{'would delete' if dry_run else 'deleted'} {what} there: {listed(done.deleted)}")
    if done.sent_files:
        say(options, f"{'would send' if dry_run else 'sent'} {amount(done)} to {there} in {done.seconds:.1f} s")
    else:
        what = "it all" if done.is_all else "all that git does not ignore"
        say(options, f"nothing new to send: {there} has {what}")
    if done.left_out:
        first = in_line(done.left_out[0].path)
        say(
            options,
            f"left here, as git ignores it: {_amounts(done.left_out)}; `--include {shlex.quote(first)}`, or a line in "
            f".kitinclude, sends it",
        )
    if done.kept_newer:
        say(
            options,
            f"kept {count(len(done.kept_newer), 'file that was', 'files that were')} changed there and newer: "
            f"{listed(done.kept_newer)}; `kit fetch` brings them here",
        )
    if done.put_aside:
        say(
            options,
            f"changed there as well, and older: {listed(done.put_aside)}; what was there is in "
            f"{options.host}:{done.aside}",
        )


def _amounts(left_out: Sequence[LeftOut]) -> str:
    """What stays here, in a sentence: the largest first."""
    shown = []
    for one in left_out[:SHOWN]:
        size = in_bytes(one.size_bytes) + ("" if one.is_whole else " and more")
        shown.append(f"{in_line(one.path)} ({size}" + (f" in {count(one.files, 'file')})" if one.files > 1 else ")"))
    if rest := left_out[SHOWN:]:
        shown.append(f"and {len(rest)} more ({in_bytes(sum(one.size_bytes for one in rest))})")
    return ", ".join(shown)


def amount(done: Synced) -> str:
    """How much went over."""
    return f"{count(done.sent_files, 'file')} ({in_bytes(done.sent_bytes)})"


def some(names: Sequence[str]) -> list[str]:
    """The first of these names, and how many there are more."""
    shown = [in_line(name) for name in names[:SHOWN]]
    return [*shown, *([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])]


def listed(names: Sequence[str]) -> str:
    """The first of these names in a sentence."""
    return ", ".join(some(names))


class SyncDisplay(LiveLine):
    """Shows one sync on stderr: a live line on a terminal, now and then a plain one elsewhere."""

    def __init__(self, options: Options, title: str, *, names: bool = False) -> None:
        super().__init__(options, title)
        self.title, self.names = title, names
        self.said = time.monotonic()

    def __enter__(self) -> tuple[Progress, Callable[[], None]]:
        self.start()
        status = None if self.options.quiet else self.status
        return Progress(message=self.message, status=status, item=self.item), self.stop

    def item(self, name: str) -> None:
        if self.names and not self.options.json:
            show(name)

    def status(self, text: str) -> None:
        self.update(f"{self.title}  {text}")
        if not self.is_live and time.monotonic() - self.said > PLAIN_EVERY_S:
            self.said = time.monotonic()
            show(f"{self.title}  {text}", err=True)
