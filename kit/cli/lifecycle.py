"""`kit ps`, `logs`, `url`, `exec`, `stop`, `start`, `restart`, `rm`: the life of a container, by name."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kit import labels, signals
from kit.cli import complete
from kit.cli.ended import Tail, print_cause
from kit.cli.options import HERE, Options, Whole, host_option, json_option
from kit.cli.output import (
    columns_of_terminal,
    picked,
    print_error,
    print_json,
    print_table,
    say,
    shortened,
    show,
    write_out,
)
from kit.engine import connect
from kit.errors import BadInputError, KitError, NetworkError, NoEngineError, NoSuchContainerError
from kit.run import containers

if TYPE_CHECKING:
    from kit.run.containers import Running

force_option = click.option("-f", "--force", is_flag=True, help="Another user's too.")


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that ended too.")
@click.option("--all-hosts", is_flag=True, help="This machine's and those of every host in the configuration.")
@host_option
@json_option
@click.pass_obj
def ps_command(options: Options, *, everything: bool, all_hosts: bool) -> None:
    """List the containers kit started."""
    if all_hosts:
        _ps_all_hosts(options, everything=everything)
        return
    found = containers.listed(connect(options.host), everything=everything, with_tokens=options.json)
    if options.json:
        print_json([as_json(r, options.host) for r in found])
        return
    if not found:
        say(options, "nothing runs" if not everything else "no containers")
        return
    print_running(found)


def _ps_all_hosts(options: Options, *, everything: bool) -> None:
    """The containers of this machine and of every configured host; one that does not answer delays no other.

    Raises NetworkError in the end when none answered.
    """
    named = [*options.setting("hosts"), options.host]
    hosts = [host for host in dict.fromkeys(named) if host not in HERE]  # this machine is asked anyway
    if not hosts:
        raise BadInputError(
            "no hosts are configured", hint='name them in ~/.config/kit/config.toml: hosts = ["lab1", "alice@lab2"]'
        )
    rows: list[dict[str, Any]] = []
    failures: list[KitError] = []
    for host, found in containers.listed_everywhere(["", *hosts], everything=everything, with_tokens=options.json):
        if isinstance(found, KitError):
            # That the machine one sits at has no engine is what --host is for.
            if host or not isinstance(found, NoEngineError):
                failures.append(found)
            continue
        rows += [as_json(r, host) for r in found]
        if not options.json:
            show(host or "this machine", bold=True)
            if found:
                print_running(found)
            else:
                show("nothing runs" if not everything else "no containers")
            show()
    if options.json:
        print_json(sorted(rows, key=lambda row: (row["host"], row["name"])))
    for failure in failures:
        print_error(failure)
    if len(failures) == len(hosts):
        raise NetworkError("none of the configured hosts answers", hint="`kit config show` lists them")


def as_json(running: Running, host: str) -> dict[str, Any]:
    """A container as `kit ps --json` has it."""
    names = ("name", "image", "service", "url", "status", "exit_code", "gpus", "lease")
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(running.since)) if running.since else ""
    more = {"command": running.command, "folder": running.folder, "since": since}
    return {**picked(running, *names), "host": host, **picked(running, "user", "owner"), **more}


def print_running(found: list[Running]) -> None:
    """Containers as a table; whose they are where that says something, and below each where it is and what it has."""
    names = [r.name for r in found]
    columns = {
        "NAME": names,
        "SINCE": [age(r.since) for r in found],
        "STATUS": [_status(r) for r in found],
    }
    if any(not r.is_own for r in found):
        columns["USER"] = [r.owner for r in found]
    # What runs may be as long as a line of the shell; it gives way.
    taken = sum(2 + max(map(len, (head, *cells))) for head, cells in columns.items())
    room = max(columns_of_terminal() - taken, 10)
    what = [shortened(r.service or r.command or "command", room) for r in found]
    columns = {"NAME": names, "RUNS": what, **{head: columns[head] for head in list(columns)[1:]}}
    print_table(list(columns), list(zip(*columns.values(), strict=True)), below=[_below(r) for r in found])


def _below(running: Running) -> list[str]:
    lines = (
        running.folder and f"in {home_as_tilde(running.folder)}",
        running.url and f"at {running.url.partition('?')[0]}",
        *(f"leases {gpu}" for gpu in running.lease),
    )
    return [line for line in lines if line]


def home_as_tilde(folder: str) -> str:
    home = os.environ.get("HOME", "").rstrip("/")
    return f"~{folder[len(home) :]}" if home and f"{folder}/".startswith(f"{home}/") else folder


def age(since: float) -> str:
    """How long ago something was, in a word: `5 min`; empty when that is not known."""
    if not since:
        return ""
    seconds = max(time.time() - since, 0)
    for unit, size, until in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < until:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // 86400)} d"


def _status(running: Running) -> str:
    return running.status if running.exit_code is None else f"{running.status} ({running.exit_code})"


@click.command("logs")
@click.argument("name", shell_complete=complete.containers)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until interrupted.")
@click.option("-n", "--tail", type=Whole(0), help="Only the last lines.")
@host_option
@click.pass_obj
def logs_command(options: Options, *, name: str, follow: bool, tail: int | None) -> None:
    """Print what a container printed.

    With --follow, of a command: until it ends, and then with its exit code. Where the container is behind --host, a
    connection that breaks is made again.
    """
    from kit.run.command import follow_job

    engine = connect(options.host)
    container = containers.find(engine, name)
    is_command = not container.labels.get(labels.SERVICE)
    if follow and tail is None and (is_command or engine.target):
        try:
            printed = Tail(write_out)
            code = follow_job(engine, container.name, printed, lambda text: say(options, text))
        except KeyboardInterrupt:
            say(options, f"\n{container.name} goes on")
            click.get_current_context().exit(signals.exit_code())
        if code:
            print_cause(bytes(printed.text))
        click.get_current_context().exit(code if is_command else 0)
    arguments = ["logs", *(["--follow"] if follow else []), *([f"--tail={tail}"] if tail is not None else [])]
    code = engine.attach([*arguments, container.name])
    if not follow and container.status in containers.STOPPED and container.exit_code:
        print_cause("\n".join(text for _, text in containers.numbered_lines(engine, container.name)).encode())
    click.get_current_context().exit(code)


@click.command("url")
@click.argument("name", shell_complete=complete.containers)
@host_option
@json_option
@click.pass_obj
def url_command(options: Options, *, name: str) -> None:
    """Print the URL of a running service, with its token; behind --host the tunnel to it is opened if it is not."""
    engine = connect(options.host)
    container = containers.find(engine, name)
    containers.require_own([container], engine, action="show the token of", hint="ask them for it")
    containers.open_tunnel(container, engine)
    found = containers.describe(container, engine)
    if not found.url:
        raise NoSuchContainerError(
            f"{found.name} is no running service (status: {found.status})", hint="`kit ps --all` lists what there is"
        )
    if options.json:
        print_json({"name": found.name, "url": found.url, "host": options.host})
    else:
        show(found.url)


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("name", shell_complete=complete.containers)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
@force_option
@host_option
@click.pass_obj
def exec_command(options: Options, *, name: str, words: tuple[str, ...], force: bool) -> None:
    """Run a command in a running container (a shell without one); its exit code is passed on."""
    engine = connect(options.host)
    container = containers.find(engine, name)
    if not force:
        containers.require_own([container], engine, action="run something in")
    if words and words[0].startswith("-") and words[0] != "--":
        raise BadInputError(
            f"`{words[0]}` after the container's name is no option of kit's, and no program",
            hint="leave out -it: a terminal is there where yours is one; options of kit's come before the name",
        )
    words = words[1:] if words[:1] == ("--",) else words
    terminal = ["--interactive", *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])]
    click.get_current_context().exit(engine.attach(["exec", *terminal, container.name, *(words or ("bash",))]))


@click.command("stop")
@click.argument("names", nargs=-1, shell_complete=complete.containers)
@click.option("--all", "everything", is_flag=True, help="Every running container of yours.")
@click.option("--time", "timeout_s", type=Whole(0), default=10, show_default=True, help="Seconds until it is killed.")
@force_option
@host_option
@click.pass_obj
def stop_command(options: Options, *, names: tuple[str, ...], everything: bool, timeout_s: int, force: bool) -> None:
    """Stop containers. What they wrote to the mounted folder and volumes stays; `kit rm` removes the rest."""
    engine = connect(options.host)
    for name in containers.stop(engine, names, everything=everything, force=force, timeout_s=timeout_s):
        say(options, f"stopped {name}")


@click.command("start")
@click.argument("names", nargs=-1, shell_complete=complete.containers)
@click.option("--all", "everything", is_flag=True, help="Every stopped container of yours.")
@host_option
@json_option
@click.pass_obj
def start_command(options: Options, *, names: tuple[str, ...], everything: bool) -> None:
    """Start stopped containers again, as they were: port, token and what was installed in them.

    A service's URL is printed once it has answered. GPUs that a container had to itself must be free.
    """
    from kit.run import again

    engine = connect(options.host)
    _print_started(options, again.start(engine, names, everything=everything, say=lambda text: say(options, text)))


@click.command("restart")
@click.argument("names", nargs=-1, shell_complete=complete.containers)
@click.option("--all", "everything", is_flag=True, help="Every running container of yours.")
@click.option("--time", "timeout_s", type=Whole(0), default=10, show_default=True, help="Seconds until it is killed.")
@host_option
@json_option
@click.pass_obj
def restart_command(options: Options, *, names: tuple[str, ...], everything: bool, timeout_s: int) -> None:
    """Stop containers and start them again, as they were."""
    from kit.run import again

    engine = connect(options.host)
    started = again.restart(
        engine, names, everything=everything, timeout_s=timeout_s, say=lambda text: say(options, text)
    )
    _print_started(options, started)


def _print_started(options: Options, started: Iterator[Running]) -> None:
    rows = []
    for running in started:
        rows.append(as_json(running, options.host))
        say(options, f"{running.name} is {running.status}")
        if running.url and not options.json:
            show(running.url)
    if options.json:
        print_json(rows)


@click.command("rm")
@click.argument("names", nargs=-1, shell_complete=complete.containers)
@click.option("--all", "everything", is_flag=True, help="Every stopped container of yours.")
@click.option("-f", "--force", is_flag=True, help="Running ones, and another user's, too.")
@host_option
@click.pass_obj
def rm_command(options: Options, *, names: tuple[str, ...], everything: bool, force: bool) -> None:
    """Remove stopped containers."""
    engine = connect(options.host)
    for name in containers.remove(engine, names, everything=everything, force=force):
        say(options, f"removed {name}")
