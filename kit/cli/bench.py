"""`kit bench NAME`, `kit bench compare A B`, `kit bench report FILE…`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kit import paths
from kit.cli import complete
from kit.cli.arguments import gpus_option, image_options
from kit.cli.options import Decimal, Options, Whole, host_option, json_option, no_image_named, own_environment
from kit.cli.output import count, print_json, print_table, say, show, show_text
from kit.cli.screen import CommandScreen
from kit.errors import BadInputError, CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.bench.host_side import BenchRequest
    from kit.catalog.rows import Image
    from kit.image.build.ensure import ImageOptions
    from kit.run.prepare import Ready
    from kit.spec.gpu_request import GpuRequest

FILE = click.Path(path_type=Path, dir_okay=False)
HELP_NAMES = ("-h", "--help")


class BenchGroup(click.Group):
    """A group whose first command needs not be named: what is no other command is an image to measure; and nothing at
    all is the environment of the project, where it has one.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing and own_environment():
            args = ["image"]
        elif args and args[0] not in self.commands and args[0] not in HELP_NAMES:
            args = ["image", *args]
        return super().parse_args(ctx, args)


@click.group("bench", cls=BenchGroup)
def bench_command() -> None:
    """Measure the GPU in an image: `kit bench NAME`.

    `kit bench image --help` shows what it takes. Matrix products, memory, transfers, launches, convolution and two
    training steps, each checked against float64 and rated against the GPU's peak and against measured references.
    """


@bench_command.command("image")
@click.argument("name", required=False, default="", shell_complete=complete.images)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="cpu only tests the code.")
@gpus_option("As for `kit run`; the first of them is measured.")
@click.option("--only", default="", metavar="TEST,…", help="These tests alone.")
@click.option("--shapes", default="", metavar="MxNxK,…", help="Of the matrix products.")
@click.option(
    "--soak",
    "soak_minutes",
    type=Decimal(0, 1440),
    default=0.0,
    metavar="MINUTES",
    help="A sustained run after the tests.",
)
@click.option("--save", type=FILE, help="Write the result as JSON.")
@click.option("--host-compare", is_flag=True, help="Measure outside a container too, in turn, and print the ratio.")
@click.option(
    "--host-python",
    default="python3",
    show_default=True,
    metavar="PROGRAM",
    help="The Python outside, with the same framework.",
)
@click.option("--pairs", type=Whole(2, 50), default=5, show_default=True, help="Of --host-compare.")
@image_options
@host_option
@json_option
@click.pass_obj
def image_command(
    options: Options,
    *,
    name: str,
    device: str,
    gpus: GpuRequest | None,
    only: str,
    shapes: str,
    soak_minutes: float,
    save: Path | None,
    host_compare: bool,
    host_python: str,
    pairs: int,
    image: ImageOptions,
) -> None:
    """Measure the GPU in an image, which is built first if need be.

    Exit codes: 0 done, 1 a verdict is FAIL, 3 no GPU. A result without a measured reference is UNRATED, never PASS.
    Without NAME, in a project with an environment of its own, it is that.
    """
    declares = None if name else own_environment()
    if not (name or declares):
        raise no_image_named()
    from kit.bench import host_side
    from kit.bench.work import parse_shapes
    from kit.run.prepare import Wanted, bring, prepare

    try:
        parse_shapes(shapes)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--shapes") from None
    if host_compare and options.host:
        raise BadInputError(
            "--host-compare measures on this machine, not behind --host",
            hint="there it is `python -m kit.bench` outside, --save inside and out, and `kit bench compare`",
        )
    tests = _tests(only)
    screen = CommandScreen(options)
    asked = host_side.gpus_for(device, gpus)

    def check(chosen: Image) -> None:
        if device == "cuda":
            host_side.require_gpu_image(chosen)
        if host_compare:
            host_side.require_host_python(chosen, host_python)

    environment = declares() if declares else None
    wanted = Wanted(name=name, environment=environment, target=options.host, image=image, gpus=asked)
    ready = prepare(wanted, screen, check)
    if device == "cuda":
        host_side.require_gpu(ready)
    request = host_side.BenchRequest(
        image=ready.image, device=device, only=tests, shapes=shapes, soak_minutes=soak_minutes
    )
    ready = bring(ready, screen)
    if host_compare:
        _host_compare(options, request, ready, host_python, pairs, save)
    else:
        _measure(options, request, ready, save)


def _tests(only: str) -> tuple[str, ...]:
    from kit.bench.suite import TEST_NAMES

    known = (*TEST_NAMES, "all_reduce")
    names = tuple(filter(None, only.split(",")))
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no test '{name}'; there are: {', '.join(known)}", param_hint="--only")
    return names


def _measure(options: Options, request: BenchRequest, ready: Ready, save: Path | None) -> None:
    from kit.bench import host_side, saved
    from kit.bench.results import as_json
    from kit.bench.text import lines

    result = host_side.measure_inside(request, ready, partial(say, options))
    if save:
        saved.save(save, result)
        say(options, f"saved as {save}")
    if options.json:
        print_json(as_json(result))
    else:
        for line in lines(result):
            show_text(line)
    if result.summary.outcome == "FAIL":
        sys.exit(1)


def _host_compare(
    options: Options, request: BenchRequest, ready: Ready, python: str, pairs: int, save: Path | None
) -> None:
    from kit.bench import host_side

    def told(where: str) -> Callable[[str], None]:
        say(options, where)
        return (lambda line: say(options, f"  {line}")) if options.verbose else lambda _: None

    found = host_side.compare_with_host(
        lambda: host_side.measure_inside(request, ready, told("inside the container")),
        lambda gpu: host_side.measure_outside(request, python, ready.catalog, told("outside"), gpu=gpu),
        pairs,
    )
    if save:
        paths.write_text(save, json.dumps(found.as_json(), indent=1) + "\n")
    if options.json:
        print_json(found.as_json())
        return
    print_table(
        ("test", "inside", "outside", "ratio", "95 % interval", "lost inside"),
        [
            (
                ratio.test,
                f"{ratio.inside:.4g} {ratio.unit}",
                f"{ratio.outside:.4g} {ratio.unit}",
                f"{ratio.ratio:.3f}",
                f"{ratio.low:.3f} to {ratio.high:.3f}",
                {"none": "nothing", "slower": "slower inside", "faster": "faster inside"}.get(ratio.loss, ratio.loss),
            )
            for ratio in found.ratios
        ],
    )
    for line in found.differences:
        show(f"differs beside the container: {line}")


@bench_command.command("compare")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option(
    "--fail-below",
    type=Decimal(0, 10),
    metavar="RATIO",
    help="Exit code 1 when the second is slower than this in a test.",
)
@json_option
@click.pass_obj
def compare_command(options: Options, *, first: Path, second: Path, fail_below: float | None) -> None:
    """Compare two saved results, test by test: how much faster the second is."""
    from kit.bench import compare, saved

    ours, theirs = saved.read(first), saved.read(second)
    found, beside = compare.compare(ours, theirs), compare.differences(ours, theirs)
    if options.json:
        print_json({"tests": [asdict(row) for row in found], "differences": beside})
    else:
        print_table(
            ("test", str(first), str(second), "ratio", "clear"),
            [
                (row.test, _value(row.first, row.unit), _value(row.second, row.unit), _ratio(row.ratio), _clear(row))
                for row in found
            ],
        )
        for line in beside:
            show(f"differs: {line}")
    slow = [row for row in found if fail_below is not None and row.ratio is not None and row.ratio < fail_below]
    if slow:
        raise CheckFailedError(
            f"{second} is slower than {fail_below:g} x {first}",
            details=tuple(f"{row.test}: {_ratio(row.ratio)}" for row in slow),
        )


def _value(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _clear(row: Any) -> str:
    return "" if row.ratio is None else "yes" if row.is_clear else "within the spread"


@bench_command.command("report")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", type=FILE, default="bench-report.html", show_default=True, help="The page.")
@click.pass_obj
def report_command(options: Options, *, files: tuple[Path, ...], output: Path) -> None:
    """Write saved results as one HTML page with plots, which needs no network."""
    from kit.bench import report, saved

    paths.write_text(output, report.page([saved.read(file) for file in files]))
    say(options, f"{count(len(files), 'result')} written to {output}")
