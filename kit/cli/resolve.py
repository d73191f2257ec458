"""`kit resolve`, and how every other command turns a name into an image for the host."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import click

from kit.catalog import load_catalog
from kit.catalog.rows import Image
from kit.cli import complete
from kit.cli.catalog import base_choice, python_inside
from kit.cli.options import Options, host_option, json_option
from kit.cli.output import print_json, say, show, warn
from kit.decide import compat
from kit.engine.built import ask_built
from kit.errors import BadInputError, IncompatibleError
from kit.host import read_gpus

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.decide.compat import Resolution
    from kit.facts.host import Host


@click.command("resolve")
@click.argument("name", default="torch", metavar="[torch|tf][VERSION]", shell_complete=complete.images)
@click.option("--driver", default="", metavar="VERSION", help="The host's driver: its version, or its branch (r580).")
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="GPU",
    help="A GPU of the host: its name, whole or short, sm_89, 8.9, or its PCI ID. Once for each.",
)
@click.option("--python", default="", metavar="X.Y", help="The Python the image must have.")
@click.option("--platform", default="", help="linux/amd64 or linux/arm64.")
@click.option("--explain", is_flag=True, help="Print every refused image with its reason (as -v does).")
@host_option
@json_option
@click.pass_obj
def resolve_command(
    options: Options, *, name: str, driver: str, gpus: tuple[str, ...], python: str, platform: str, explain: bool
) -> None:
    """Say which image works on a host, and why the others do not, before anything is downloaded.

    The host is this machine, or --host; --driver, --gpu and --platform declare what it has instead. Exit code 3 when
    nothing fits, with every reason and the smallest change that would help.
    """
    if python and not re.fullmatch(r"3\.\d{1,2}", python, re.ASCII):
        raise BadInputError(f"--python {python}: not a Python version", hint="give it as 3.12")
    # Of this machine's own engine, which answers meanwhile.
    built = None if options.host or driver or gpus or platform else ask_built()
    catalog = load_catalog()
    asked = compat.parse_name(catalog, name)
    if isinstance(asked, Image):
        asked = compat.request_for(asked)
    asked = dataclasses.replace(asked, python=python)
    # With a driver and a GPU declared nothing of this machine matters.
    read = None if driver and gpus and not options.host else read_gpus(options.host)
    host = read or compat.unknown_host()
    if driver or gpus or platform:
        host = compat.declared_host(catalog, driver=driver, gpus=gpus, platform=platform, base=host)
    host = compat.with_pci_gpus(catalog, host)
    found = compat.resolve(asked, catalog, host)
    if driver and (taken := compat.declared_driver(catalog, driver).note):
        found = dataclasses.replace(found, warnings=(taken, *found.warnings))

    def inside() -> str:
        image = found.image
        return python_inside(catalog, image, base_choice(options), (built and built()) or {}) if image else ""

    if options.json:
        print_json(_as_json(catalog, found, host, inside()))
        click.get_current_context().exit(0 if found.image else IncompatibleError.exit_code)
    if found.image is None:
        for warning in found.warnings:
            warn(warning)
        raise compat.no_fit(name, found, host)
    show(found.image.name)
    if options.quiet:
        return
    for line in (summary(found.image, inside()), *found.reasons, *found.limits, *found.newer):
        show(f"  {line}")
    for warning in found.warnings:
        warn(warning)
    if explain or options.verbose:
        if found.alternatives:
            show(f"works too: {', '.join(image.name for image in found.alternatives)}")
        for line in compat.refusal_lines(found.refused):
            show(f"refused: {line}")
    elif found.refused or found.alternatives:
        say(
            options,
            f"for {compat.describe(host)}; {len(found.alternatives)} more work too, {len(found.refused)} do not: "
            "--explain says which and why",
        )


def summary(image: Image, python: str) -> str:
    """What an image is, in one line."""
    release = image.release
    cuda = f"CUDA {release.cuda}" + (f", cuDNN {release.cudnn}" if release.cudnn else "") if release.cuda else "CPU"
    return f"{release.framework} {release.version}, {cuda}, Python {python}"


def _as_json(catalog: Catalog, found: Resolution, host: Host, python: str) -> dict[str, Any]:
    return {
        "image": found.image.name if found.image else None,
        "summary": summary(found.image, python) if found.image else "",
        "reasons": list(found.reasons),
        "warnings": list(found.warnings),
        "alternatives": [image.name for image in found.alternatives],
        "refused": [{"image": v.image.name, "reasons": list(v.refusals)} for v in found.refused],
        "hint": found.hint,
        "limits": list(found.limits),
        "newer": list(found.newer),
        "host": {
            "driver": host.driver,
            "platform": host.platform,
            "declared": host.is_declared,
            "gpus": [
                {
                    "name": gpu.name,
                    "compute_capability": (capability := compat.capability_of(catalog, gpu)),
                    "last_driver": compat.last_branch(catalog, capability),
                    "memory": compat.memory_of_device(catalog, gpu.device_id),
                }
                for gpu in host.gpus
            ],
        },
    }
