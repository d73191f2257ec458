"""`kit explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kit import redact
from kit.catalog import load_catalog
from kit.cli.options import Options, host_option, json_option
from kit.cli.output import count, picked, print_json, print_table, say, show
from kit.decide.explain import explain_lines, known_errors, numbered_lines, proof_of
from kit.errors import BadInputError, CheckFailedError, KitError

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.rows import Problem
    from kit.decide.doctor import Finding
    from kit.decide.explain import Match

PIPE_HINT = "name a file, pipe one in (`COMMAND 2>&1 | kit explain`), or give --container NAME"


@click.command("explain")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--container", default="", metavar="NAME", help="Read what this container printed, and how it ended.")
@click.option("--list", "everything", is_flag=True, help="List the errors kit knows.")
@host_option
@json_option
@click.pass_obj
def explain_command(options: Options, *, file: str | None, container: str, everything: bool) -> None:
    """Recognise known GPU, Docker and framework errors in a log; say cause and fix, the root cause first.

    Reads FILE, or standard input. Exit code 1 when nothing is recognised.
    """
    if sum((bool(file), bool(container), everything)) > 1:
        raise BadInputError("FILE, --container and --list exclude each other", hint=PIPE_HINT)
    catalog = load_catalog()
    if everything:
        print_list(options, catalog.problems)
        return
    name = f"the log of {container}" if container else "standard input" if file in (None, "-") else str(file)
    if container:
        from kit.engine import connect
        from kit.run.containers import numbered_lines

        lines = numbered_lines(connect(options.host), container)
    else:
        lines = file_lines(file)
    report = explain_lines(lines, known_errors(catalog))
    here = found_here(report.cause, catalog, options.host)
    if options.json:
        rows = [describe(match, here if match is report.cause else None) for match in report.matches]
        print_json({"problems": rows, "lines": report.lines})
    else:
        print_matches(report.matches, here)
    if not report.matches:
        raise CheckFailedError(
            f"nothing known in {name} ({count(report.lines, 'line')})",
            hint="`kit doctor` examines this machine; `kit explain --list` shows what kit knows; when you ask others "
            "(pytorch's or tensorflow's issues, forums.developer.nvidia.com), add what `kit doctor --json` prints",
        )
    if not options.json:
        say(options, f"\n{count(len(report.matches), 'known problem')} in {count(report.lines, 'line')}")


def file_lines(file: str | None) -> Iterator[tuple[int, str]]:
    """The numbered lines of a file, or of standard input. Raises BadInputError."""
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise BadInputError("no log given", hint=PIPE_HINT)
    if file in (None, "-"):
        yield from numbered_lines(sys.stdin.buffer)
        return
    try:
        with Path(str(file)).open("rb") as stream:
            yield from numbered_lines(stream)
    except OSError as e:
        what = "there is no file" if isinstance(e, FileNotFoundError) else "cannot read"
        reason = "" if isinstance(e, FileNotFoundError) else f": {e.strerror}"
        raise BadInputError(f"{what} {file}{reason}", hint=PIPE_HINT) from None


def found_here(cause: Match | None, catalog: Catalog, target: str) -> Finding | None:
    """What `kit doctor` finds on this machine (or --host) that proves the cause; None when it finds nothing of it."""
    if cause is None or not cause.problem.proof:
        return None
    from kit.decide.doctor import examine
    from kit.host import read_host

    try:
        return proof_of(cause, examine(read_host(target), catalog))
    except KitError:
        return None  # a machine that cannot be read proves nothing, and the cause stands without it


def describe(match: Match, here: Finding | None) -> dict[str, Any]:
    """What `kit explain --json` says of a problem. The keys are an interface."""
    known = picked(match.problem, "cause", "decide", "fix", "check", "harmless", "source")
    return {"id": match.problem.id, **picked(match, "line", "text", "count"), "causes": list(match.causes), **known} | {
        "here": here and picked(here, "message", "fix")
    }


def print_matches(matches: tuple[Match, ...], here: Finding | None) -> None:
    """Each problem on stdout: where, why, what to do, and the check that finds it or has found it `here`."""
    for number, match in enumerate(matches):
        if number:
            show()
        times = f", {match.count} times" if match.count > 1 else ""
        show(f"line {match.line}{times}: ", fg="red", bold=True, nl=False)
        show(f"{match.text} [{match.problem.id}]")
        show(f"  {'harmless' if match.problem.harmless else 'cause'}: {match.problem.cause}")
        if match.causes:
            show(f"  follows from: {', '.join(match.causes)}")
        if match.problem.decide:
            show(f"  decide: {match.problem.decide}")
        show(f"  fix: {match.problem.fix}")
        if here and not number:
            show(f"  proven here: {redact.text(here.message)}")
            show(f"  fix here: {redact.text(here.fix)}")
        elif match.problem.check:
            show(f"  found by: `kit doctor` ({match.problem.check})")
        show(f"  seen: {match.problem.source}")


def print_list(options: Options, problems: tuple[Problem, ...]) -> None:
    """Every error kit knows, by its identifier, on stdout."""
    if options.json:
        print_json([picked(problem, "id", "cause", "check") for problem in problems])
        return
    print_table(("id", "cause"), [(problem.id, problem.cause) for problem in problems])
    say(options, f"\n{count(len(problems), 'known problem')}")
