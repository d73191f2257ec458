"""`kit tunnel`: the SSH tunnels to services on hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kit import labels
from kit.cli.options import Options, Whole, host_option, json_option
from kit.cli.output import picked, print_json, print_table, say, show
from kit.engine import connect
from kit.errors import BadInputError
from kit.remote import ssh, tunnels
from kit.run import containers

if TYPE_CHECKING:
    from kit.engine import Container, Engine
    from kit.remote.tunnels import Tunnel


@click.group("tunnel", invoke_without_command=True)
@host_option
@json_option
@click.pass_context
def tunnel_command(ctx: click.Context) -> None:
    """List, open and close the SSH tunnels to services on hosts; without a subcommand: list them.

    `kit run` on a host opens one by itself. Tunnels stay up until they are closed: they connect anew after sleep or
    when the network comes back, on the same port. `kit stop` closes those of a container.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(ls_command)


@tunnel_command.command("ls")
@host_option
@json_option
@click.pass_obj
def ls_command(options: Options) -> None:
    """List the tunnels of this machine; with --host those to that one."""
    found = _on_host(options, tunnels.listed())
    if options.json:
        print_json([as_json(tunnel) for tunnel in found])
        return
    if not found:
        say(options, "no tunnels")
        return
    print_table(
        ["HOST", "CONTAINER", "SERVICE", "LOCAL", "STATUS"],
        [[t.target, t.container, t.service or "-", f"127.0.0.1:{t.local_port}", _status(t)] for t in found],
    )


@tunnel_command.command("open")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--port", type=Whole(1, 65535), help="The port of this machine.  [default: the next free one]")
@host_option
@json_option
@click.pass_obj
def open_command(options: Options, *, names: tuple[str, ...], port: int | None) -> None:
    """Open tunnels to containers of a host, or to all your services that run there; prints their URLs."""
    if not options.host:
        raise BadInputError(
            "a tunnel leads to another machine, and none is named",
            hint="name it: `kit --host user@server tunnel open`; services of this machine need no tunnel",
        )
    engine = connect(options.host)
    wanted = list(dict.fromkeys(names))
    chosen = containers.targets(engine, wanted, everything=not names, statuses=("running",))
    if not names:
        chosen = [container for container in chosen if container.labels.get(labels.SERVICE)]
    if port is not None and len(chosen) != 1:
        raise BadInputError(
            f"--port {port} is for one tunnel, not for {len(chosen)}", hint="name one container: `kit ps`"
        )
    opened = [_open(engine, container, port) for container in chosen]
    urls = [_url(engine, container, tunnel) for container, tunnel in zip(chosen, opened, strict=True)]
    if options.json:
        print_json([{**as_json(tunnel), "url": url} for tunnel, url in zip(opened, urls, strict=True)])
        return
    for url in urls:
        show(url)
    if not opened:
        say(options, f"no service of yours runs on {options.host}")


@tunnel_command.command("close")
@click.argument("names", nargs=-1, metavar="[NAME|ID|PORT...]")
@click.option("--all", "everything", is_flag=True, help="Every tunnel; with --host every one to that machine.")
@host_option
@click.pass_obj
def close_command(options: Options, *, names: tuple[str, ...], everything: bool) -> None:
    """Close tunnels, by container, ID or local port. The services go on running; --all also ends the connections that
    kit shares between its commands.
    """
    if bool(names) == everything:
        raise BadInputError(
            "give either tunnels or --all" if names else "no tunnel named",
            hint="name one or more (`kit tunnel` lists them), or give --all",
        )
    there = _on_host(options, tunnels.listed())
    wanted = there if everything else list(dict.fromkeys(t for name in names for t in tunnels.matching(there, name)))
    for tunnel in tunnels.close(wanted):
        say(options, f"closed {tunnel.container} on {tunnel.target} (127.0.0.1:{tunnel.local_port})")
    if everything:
        if options.asked_host and options.host:
            ssh.close(options.host)
        else:
            ssh.close_all()
        if not wanted:
            say(options, "no tunnels")


def as_json(tunnel: Tunnel) -> dict[str, Any]:
    """What `kit tunnel --json` says of a tunnel. The keys are an interface."""
    names = ("container", "service", "local_port", "remote_port", "status", "problem", "url", "started")
    return {"id": tunnel.id, "host": tunnel.target, **picked(tunnel, *names)}


def _on_host(options: Options, found: Sequence[Tunnel]) -> list[Tunnel]:
    # A host that only the configuration names is where commands run, not what is asked for here.
    asked = options.host if options.asked_host else ""
    return [tunnel for tunnel in found if not asked or tunnel.target == asked]


def _status(tunnel: Tunnel) -> str:
    return tunnel.status if not tunnel.problem else f"{tunnel.status}: {tunnel.problem}"


def _open(engine: Engine, container: Container, port: int | None) -> Tunnel:
    tunnel = containers.open_tunnel(container, engine, port=port)
    if tunnel is None:
        raise BadInputError(
            f"{container.name} is no running service that a tunnel could lead to (status: {container.status})",
            hint=f"`kit --host {engine.target} ps` lists those that run",
        )
    return tunnel


def _url(engine: Engine, container: Container, tunnel: Tunnel) -> str:
    """The address to open, with the token of a Jupyter that is the caller's own."""
    # It is described with the tunnel that leads there now.
    return containers.describe(container, engine).url or tunnel.url
