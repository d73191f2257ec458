"""`kit list` and `kit show`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kit import paths
from kit.catalog import load_catalog
from kit.catalog.rows import version_key
from kit.cli import complete
from kit.cli.options import Options, json_option
from kit.cli.output import picked, print_facts, print_json, print_table, say, show, show_text
from kit.decide.bases import pythons_on
from kit.engine.built import ask_built
from kit.errors import BadInputError, LockError, UnlockedError

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.rows import Image


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Also the -devel images.")
@json_option
@click.pass_obj
def list_command(options: Options, *, everything: bool) -> None:
    """List the images, and whether each is locked and built."""
    built = ask_built()  # first: the engine's answer takes longer than all the rest
    catalog = load_catalog()
    images = [image for image in catalog.images() if everything or not image.flavor]
    base, names = base_choice(options), built()
    rows = [
        {**describe(catalog, image, base, names or {}), "built": None if names is None else image.name in names}
        for image in images
    ]
    if options.json:
        print_json(rows)
        return
    print_table(
        ("name", "version", "CUDA", "cuDNN", "Python", "min driver", "locked", "built"),
        [
            (
                row["name"],
                row["version"],
                row["cuda"] or "-",
                row["cudnn"] or "-",
                row["python"].replace(" or ", "/"),
                row["min_driver"] or "-",
                "no" if not row["locked"] else "unconfirmed" if row["lock_hashes"] else "yes",
                _yes_no(row["built"]),
            )
            for row in rows
        ],
    )
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["unlocked_reason"]:
            reasons.setdefault(row["unlocked_reason"], []).append(row["name"])
    if reasons or any(row["lock_hashes"] for row in rows):
        show()
    for reason, unlocked in reasons.items():
        show_text(f"unlocked: {', '.join(unlocked)}: {reason}")
    for row in rows:
        if row["lock_hashes"]:
            show_text(
                f"unconfirmed: {row['name']}: hashes {row['lock_hashes']}; `kit lock {row['name']}` confirms them"
            )
    hidden = len(catalog.images()) - len(images)
    if hidden:
        say(options, f"{hidden} more with the compiler: kit list --all; everything about one: kit show NAME")


@click.command("show")
@click.argument("name", shell_complete=complete.images)
@json_option
@click.pass_obj
def show_command(options: Options, *, name: str) -> None:
    """Show everything known about one image, and where each fact is from."""
    catalog = load_catalog()
    image = catalog.find(name)
    names = ask_built()()
    built = None if names is None else image.name in names
    facts = {**describe(catalog, image, base_choice(options), names or {}), "built": built, **_more(catalog, image)}
    if options.json:
        print_json(facts)
        return
    print_facts([(key.replace("_", " "), _shown(value)) for key, value in facts.items()])


def base_choice(options: Options) -> str:
    """Which base `kit build` takes unless it is told: what the variable or the configuration says."""
    if named := os.environ.get("KIT_BASE"):
        return named
    try:
        return str(options.config.value("base")) if options.is_configured else "auto"
    except BadInputError:
        return "auto"  # what builds is stopped by a wrong file; what lists images shows both Pythons


def python_inside(catalog: Catalog, image: Image, base: str, built: Mapping[str, str]) -> str:
    """The Python that is in an image that was built, else the one that will be, or the two of which it will be one."""
    return built.get(image.name) or " or ".join(pythons_on(catalog, image, base))


def describe(catalog: Catalog, image: Image, base_choice: str, built: Mapping[str, str]) -> dict[str, Any]:
    """What `kit list --json` says of an image, `built` aside. The keys are an interface."""
    release, base = image.release, catalog.base_for(image)
    reason = catalog.unlocked_reason(image)
    return {
        "name": image.name,
        **picked(release, "framework", "version", "cuda", "cudnn"),
        "python": python_inside(catalog, image, base_choice, built),
        "provider": release.cuda_provider,
        "base": f"{base.repository}:{base.tag}",
        "min_driver": catalog.min_driver(image),
        "compute_capabilities": release.compute_capabilities,
        "locked": not reason,
        "unlocked_reason": reason,
        "lock_hashes": _lock_hashes(catalog, image),
    }


def _lock_hashes(catalog: Catalog, image: Image) -> str:
    """Where the lock's hashes are from, when the index of the image's framework has not confirmed them; else ""."""
    if not image.release.index:
        return ""
    from kit.locks import unconfirmed

    return unconfirmed(catalog, image)


def _more(catalog: Catalog, image: Image) -> dict[str, Any]:
    # Not for `kit list`, which would take a tenth longer.
    from kit.decide.compat import code_for
    from kit.locks.format import read_lock

    release, base = image.release, catalog.base_for(image)
    covered = [gpu for gpu in catalog.gpus if code_for(release, gpu.compute_capability, release.platforms[0])[0]]
    facts: dict[str, Any] = {
        "aliases": catalog.aliases(image),
        "requirements": release.requirements,
        "packages": [p.requirement or p.name for p in catalog.packages_for(image)],
        **picked(release, "platforms", "pythons", "ptx"),
        "ptx_limit": f"up to {release.ptx_newest}: {release.ptx_source}" if release.ptx_newest else "",
        "compute_capabilities_arm64": list(dict(release.compute_capabilities_on).get("linux/arm64", ())),
        "gpus_covered": len(covered),
        "arm64_wheel": release.arm64_wheel,
        "limits": _limits(catalog, image) if image.is_gpu else [],
        "base_digest": base.digest,
        "base_digest_status": base.digest_status,
        **picked(release, "suites", "note", "source", "verified"),
        "base_source": base.source,
    }
    if release.cuda:
        toolkit = catalog.toolkit(release.cuda)
        facts["driver_source"] = toolkit.source
        facts["nvcc"] = toolkit.nvcc_note
    try:
        lock = read_lock(paths.images_dir() / image.name, image)
        facts |= {"locked_packages": len(lock.packages), "locked_on": lock.file.snapshot, "lock_hash": lock.lock_hash}
    except UnlockedError:
        pass
    except LockError as e:
        facts["lock_problem"] = e.message
    return facts


def _limits(catalog: Catalog, image: Image) -> list[str]:
    """What some of the GPUs that the image has code for cannot do, and who says so."""
    oldest = min(image.release.compute_capabilities, key=version_key, default="")
    return [
        f"no {row.what} {f'below {row.below}' if row.below else f'on {row.platform}'} ({row.source})"
        for row in catalog.limits
        if row.framework in ("", image.framework)
        and (not row.below or (oldest and version_key(oldest) < version_key(row.below)))
    ]


def _yes_no(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return _yes_no(value)
    if isinstance(value, list | tuple):
        import textwrap

        value = textwrap.fill(", ".join(str(v) for v in value), width=88)
    return str(value) or "-"
