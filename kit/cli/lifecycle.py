"""`kit ps`, `logs`, `url`, `exec`, `stop`, `rm`: the life of a container, by name."""

from __future__ import annotations

import click

from kit.cli import Options, json_option


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that ended too.")
@json_option
@click.pass_obj
def ps_command(options: Options, *, everything: bool) -> None:
    """List the containers kit started."""
    from kit import run
    from kit.cli.output import print_json, print_table, say
    from kit.engine import connect

    found = run.listed(connect(), everything=everything)
    if options.json:
        print_json(
            [
                {
                    "name": r.name,
                    "image": r.image,
                    "service": r.service,
                    "url": r.url,
                    "status": r.status,
                    "gpus": r.gpus,
                    "lease": list(r.lease),
                    "host": "",
                    "user": r.user,
                }
                for r in found
            ]
        )
        return
    if not found:
        say(options, "nothing runs" if not everything else "no containers")
        return
    header = ["NAME", "SERVICE", "STATUS", "URL"]
    rows = [[r.name, r.service or "command", r.status, r.url.partition("?")[0]] for r in found]
    if any(r.lease for r in found):
        header.append("LEASED GPUS")
        for row, r in zip(rows, found, strict=True):
            row.append(" ".join(r.lease))
    print_table(header, rows)


@click.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until interrupted.")
@click.option("-n", "--tail", type=click.IntRange(0), help="Only the last lines.")
def logs_command(*, name: str, follow: bool, tail: int | None) -> None:
    """Print what a container printed."""
    from kit import run
    from kit.engine import connect

    engine = connect()
    container = run.find(engine, name)
    arguments = ["logs", *(["--follow"] if follow else []), *([f"--tail={tail}"] if tail is not None else [])]
    click.get_current_context().exit(engine.attach([*arguments, container.name]))


@click.command("url")
@click.argument("name")
@json_option
@click.pass_obj
def url_command(options: Options, *, name: str) -> None:
    """Print the URL of a running service, with its token."""
    from kit import run
    from kit.cli.output import print_json
    from kit.engine import connect
    from kit.errors import NoSuchContainerError

    engine = connect()
    found = run.describe(run.find(engine, name))
    if not found.url:
        raise NoSuchContainerError(
            f"{found.name} is no running service (status: {found.status})", hint="`kit ps --all` lists what there is"
        )
    if options.json:
        print_json({"name": found.name, "url": found.url})
    else:
        click.echo(found.url)


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("name")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
def exec_command(*, name: str, words: tuple[str, ...]) -> None:
    """Run a command in a running container (a shell without one); its exit code is passed on."""
    import sys

    from kit import run
    from kit.engine import connect

    engine = connect()
    container = run.find(engine, name)
    words = words[1:] if words[:1] == ("--",) else words
    terminal = ["--interactive", *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])]
    click.get_current_context().exit(engine.attach(["exec", *terminal, container.name, *(words or ("bash",))]))


@click.command("stop")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every running container of kit's.")
@click.option(
    "--time", "timeout_s", type=click.IntRange(0), default=10, show_default=True, help="Seconds until it is killed."
)
@click.pass_obj
def stop_command(options: Options, *, names: tuple[str, ...], everything: bool, timeout_s: int) -> None:
    """Stop containers. What they wrote to the mounted folder and volumes stays; `kit rm` removes the rest."""
    from kit import run
    from kit.cli.output import say
    from kit.engine import connect
    from kit.errors import BadInputError

    if not names and not everything:
        raise BadInputError("no container named", hint="name one or more (`kit ps` lists them), or give --all")
    engine = connect()
    targets = (
        [r.name for r in run.listed(engine, everything=False)]
        if everything
        else [run.find(engine, name).name for name in names]
    )
    for target in targets:
        engine.stop(target, timeout_s=timeout_s)
        say(options, f"stopped {target}")


@click.command("rm")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every stopped container of kit's.")
@click.option("-f", "--force", is_flag=True, help="Running ones too.")
@click.pass_obj
def rm_command(options: Options, *, names: tuple[str, ...], everything: bool, force: bool) -> None:
    """Remove stopped containers."""
    from kit import run
    from kit.cli.output import say
    from kit.engine import connect
    from kit.errors import BadInputError

    if not names and not everything:
        raise BadInputError("no container named", hint="name one or more (`kit ps --all` lists them), or give --all")
    engine = connect()
    targets = (
        [r.name for r in run.listed(engine, everything=True) if force or r.status != "running"]
        if everything
        else [run.find(engine, name).name for name in names]
    )
    for target in targets:
        if not force and engine.container(target).status == "running":
            raise BadInputError(f"{target} is running", hint=f"stop it first (`kit stop {target}`), or give --force")
        engine.remove(target, force=force)
        say(options, f"removed {target}")
