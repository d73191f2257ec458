"""`kit verify`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit import paths, verify
from kit.cli import complete
from kit.cli.arguments import gpus_option, image_options
from kit.cli.live import LiveLine
from kit.cli.options import Options, host_option, json_option, no_image_named, own_environment
from kit.cli.output import picked, print_json, print_table, say, show
from kit.cli.screen import CommandScreen
from kit.errors import BadInputError, CheckFailedError
from kit.verify.junit import junit

if TYPE_CHECKING:
    from kit.image.build.ensure import ImageOptions
    from kit.spec.gpu_request import GpuRequest
    from kit.verify.report import Check, Report

DETAIL_WIDTH = 100
WORDS = {"passed": "passed", "failed": "FAILED", "not_run": "not run"}


@click.command("verify")
@click.argument("name", required=False, default="", shell_complete=complete.images)
@gpus_option("As of `kit run`; none: the checks that need no GPU.  [default: all]")
@click.option("--only", multiple=True, metavar="CHECK", help="This check or group of checks; several times: these.")
@click.option("--image", "reference", default="", metavar="REFERENCE", help="The engine's name for what is verified.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the results as JUnit XML too.",
)
@click.option("--force", is_flag=True, help="Verify an image even when it cannot work with this driver or GPU.")
@image_options
@host_option
@json_option
@click.pass_obj
def verify_command(
    options: Options,
    *,
    name: str,
    gpus: GpuRequest | None,
    only: tuple[str, ...],
    reference: str,
    junit: Path | None,
    force: bool,
    image: ImageOptions,
) -> None:
    """Prove that an image is what its lock and the catalog say, and that it works, in a container of it.

    NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine. An image that is
    there is verified as it is; one that is not is built first. What needs a GPU is `not run` where there is none.
    Without NAME, in a project with an environment of its own, it is that, and the `check` of its kit.toml as well.
    """
    declares = None if name else own_environment()
    if not (name or declares):
        raise no_image_named()
    request = verify.VerifyRequest(
        name=name,
        environment=declares() if declares else None,
        target=options.host,
        reference=reference,
        gpus=gpus,
        force=force,
        image=image,
    )
    ready = verify.made_ready(request, CommandScreen(options))
    with VerifyDisplay(options, ready.name) as display:
        report = verify.verify(ready, only=only, on_message=display.message, on_check=display.add)
    if options.json:
        checks = [picked(check, "name", "outcome", "detail") for check in report.checks]
        print_json({"image": report.image, "checks": checks})
    else:
        _print_table(report)
    if junit:
        _write_junit(junit, report)
    counts = ", ".join(f"{n} {word.lower()}" for outcome, word in WORDS.items() if (n := _count(report, outcome)))
    if failed := [c for c in report.checks if c.outcome == "failed"]:
        raise CheckFailedError(
            f"{report.reference}: {counts}",
            details=tuple(f"{c.name}: {line}" for c in failed for line in c.detail.splitlines() or [""]),
            hint=f"`{' '.join(filter(None, ('kit verify', name)))} --only {failed[0].name}` runs one again",
        )
    say(options, f"{report.reference}: {counts}")


class VerifyDisplay(LiveLine):
    """How a verification shows itself: one live line on a terminal, a line per finished group elsewhere."""

    def __init__(self, options: Options, image: str) -> None:
        super().__init__(options, f"{image}: starting a container")
        self.image = image
        self.done: list[Check] = []

    def __enter__(self) -> VerifyDisplay:
        self.start()
        return self

    def add(self, check: Check, total: int) -> None:
        """A check has ended."""
        self.done.append(check)
        count = len(self.done)
        self.update(f"{self.image}: {count} of {total} checks, {check.name.replace('[', ' ').strip(']')}")
        if self.is_live or self.options.quiet:
            return
        if check.outcome == "failed":
            show(f"  {count} of {total}: {check.name} failed", err=True)
        elif count == total or count % 10 == 0:
            show(f"  {count} of {total}", err=True)


def _print_table(report: Report) -> None:
    rows = []
    # Checks of a group that were not run for one reason are one row.
    for (group, reason), found in groupby(
        report.checks, key=lambda c: (c.name.partition(".")[0], c.detail if c.outcome == "not_run" else None)
    ):
        checks = list(found)
        if reason is not None and len(checks) > 1:
            rows.append((f"{group} ({len(checks)} checks)", WORDS["not_run"], _shortened(reason)))
        else:
            rows += [(c.name, WORDS[c.outcome], _shortened(c.detail)) for c in checks]
    print_table(("check", "result", "detail"), rows)


def _shortened(detail: str) -> str:
    line = detail.partition("\n")[0]
    return line if len(line) <= DETAIL_WIDTH else f"{line[: DETAIL_WIDTH - 1]}…"


def _count(report: Report, outcome: str) -> int:
    return sum(check.outcome == outcome for check in report.checks)


def _write_junit(file: Path, report: Report) -> None:
    try:
        paths.write_text(file, junit(report))
    except OSError as e:
        if e.errno in paths.FULL:
            raise
        raise BadInputError(
            f"--junit {file} cannot be written: {e.strerror}", hint="name a file in a folder that you may write to"
        ) from None
