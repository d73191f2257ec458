"""`kit ps --all-hosts`: every configured machine is asked at once, and each shows its rows when it has answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kit.cli import HERE, Options

if TYPE_CHECKING:
    from kit.run.containers import Running


def ps_all_hosts(options: Options, *, everything: bool) -> None:
    """The containers of this machine and of every configured host; one that does not answer delays no other.

    Raises NetworkError in the end when none answered.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from kit.cli.lifecycle import as_json, print_running
    from kit.cli.output import print_error, print_json
    from kit.errors import BadInputError, KitError, NetworkError, NoEngineError

    named = [*options.setting("hosts"), options.host]
    hosts = [host for host in dict.fromkeys(named) if host not in HERE]  # this machine is asked anyway
    if not hosts:
        raise BadInputError(
            "no hosts are configured", hint='name them in ~/.config/kit/config.toml: hosts = ["lab1", "alice@lab2"]'
        )
    rows: list[dict[str, Any]] = []
    failures: list[KitError] = []
    with ThreadPoolExecutor(max_workers=min(32, len(hosts) + 1)) as pool:
        waiting = {pool.submit(_ask, host, everything, options.json): host for host in ["", *hosts]}
        for answer in as_completed(waiting):
            host = waiting[answer]
            try:
                found = answer.result()
            except NoEngineError as e:
                # That the machine one sits at has no engine is what --host is for.
                if host:
                    failures.append(e)
                continue
            except KitError as e:
                failures.append(e)
                continue
            rows += [as_json(r, host) for r in found]
            if not options.json:
                click.secho(host or "this machine", bold=True)
                if found:
                    print_running(found)
                else:
                    click.echo("nothing runs" if not everything else "no containers")
                click.echo()
    if options.json:
        print_json(sorted(rows, key=lambda row: (row["host"], row["name"])))
    for failure in failures:
        print_error(failure)
    if len(failures) == len(hosts):
        raise NetworkError("none of the configured hosts answers", hint="`kit config show` lists them")


def _ask(host: str, everything: bool, with_tokens: bool) -> list[Running]:
    from kit.engine import connect
    from kit.run import containers

    # Nobody can answer ten questions for passwords at once.
    return containers.listed(connect(host, may_ask=False), everything=everything, with_tokens=with_tokens)
