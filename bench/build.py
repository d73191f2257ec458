"""Building an image by kit against the same packages as people write them: `make bench-build`.

Both builds start cold (no build cache, no downloaded wheels), on the same base, in the same engine and image store, one
after the other in one run. Compressed bytes are what each image's layers take in a registry.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.registry import get_manifest, layer_sizes, local_registry
from kit.catalog import load_catalog
from kit.catalog.rows import Image
from kit.cli.options import Options
from kit.cli.screen import BuildDisplay
from kit.engine import Engine, connect
from kit.image import base
from kit.image.build.images import build
from kit.image.build.inputs import read_inputs
from kit.image.build.options import BuildOptions
from kit.locks.format import Lock
from kit.network import NetworkSettings, read_settings

NAIVE = Path(__file__).with_name("naive.Dockerfile")
# A small pure package no image carries, for "one more package on a built image".
ONE_MORE = "cowsay"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def docker(engine: Engine, *args: str) -> str:
    return engine.call(args, timeout_s=3600)


def pins(lock: Lock) -> str:
    """The lock's names and versions as people write a requirements file: no hashes."""
    return "".join(
        line.rstrip(" \\") + "\n"
        for line in lock.requirements.splitlines()
        if "==" in line and not line.startswith("#")
    )


def build_naive(engine: Engine, base_reference: str, wanted: str, network: NetworkSettings, tag: str) -> None:
    """One `pip install --no-cache-dir` of a requirements file, with the engine's default compression."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pins.txt").write_text(wanted)
        secrets = []
        if network.ca_file:
            secrets.append(f"--secret=id=ca,src={network.ca_file}")
        if script := network.shell_script():
            Path(folder, "environment").write_text(script)
            secrets.append(f"--secret=id=environment,src={folder}/environment")
        docker(
            engine,
            "buildx",
            "build",
            "--quiet",
            "--provenance=false",
            f"--build-arg=BASE={base_reference}",
            *secrets,
            "--tag",
            tag,
            "--file",
            str(NAIVE),
            folder,
        )


def limit_seconds(lock: Lock, network: NetworkSettings) -> float:
    """What the lock takes to install into a plain folder of this machine, nothing cached: no build can be faster."""
    import uv

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "requirements.txt").write_text(lock.requirements)
        environment = {**os.environ, "UV_CACHE_DIR": f"{folder}/cache", "UV_LINK_MODE": "hardlink"}
        if network.index_url:
            environment["UV_DEFAULT_INDEX"] = network.index_url
        command = [
            uv.find_uv_bin(),
            "pip",
            "install",
            "--quiet",
            "--target",
            f"{folder}/site",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--python-version",
            "3.11",
            "--requirement",
            f"{folder}/requirements.txt",
        ]
        return timed(lambda: subprocess.run(command, check=True, env=environment))


def one_more_package(image: Image, engine: Engine, options: BuildOptions) -> float:
    """Seconds from a catalog with one more package to an image with it, lock and render done before the clock."""
    import shutil

    from kit import paths

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(paths.templates_dir(), root / "templates")
        shutil.copytree(paths.images_dir(), root / "images")
        shutil.copytree(paths.catalog_dir(), root / "catalog", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        with (root / "catalog/packages.toml").open("a") as rows:
            rows.write(f'\n[[package]]\nname = "{ONE_MORE}"\nsource = "the benchmark"\n')
        script = (
            "import sys; from pathlib import Path; from kit import locks, render; "
            "from kit.catalog import load_catalog; c = load_catalog(Path(sys.argv[1])); i = c.find(sys.argv[2]); "
            "locks.solve(c, i); render.render(c, [i])"
        )
        environment = {**os.environ, "KIT_ROOT": folder}
        subprocess.run([sys.executable, "-c", script, str(root / "catalog"), image.name], check=True, env=environment)
        catalog = load_catalog(root / "catalog")
        os.environ["KIT_ROOT"] = folder
        paths.root_dir.cache_clear()
        try:
            return timed(lambda: build(catalog, catalog.find(image.name), engine, options))
        finally:
            del os.environ["KIT_ROOT"]
            paths.root_dir.cache_clear()


def push_sizes(engine: Engine, registry: str, reference: str, name: str) -> dict[str, int]:
    docker(engine, "tag", reference, f"{registry}/{name}:latest")
    docker(engine, "push", "--quiet", f"{registry}/{name}:latest")
    docker(engine, "rmi", f"{registry}/{name}:latest")
    return layer_sizes(get_manifest(registry, name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="torch-cu126")
    parser.add_argument("--skip-naive", action="store_true", help="only kit's own build and the package after it")
    arguments = parser.parse_args()
    catalog, engine = load_catalog(), connect()
    image = catalog.find(arguments.image)
    lock = read_inputs(catalog, image).lock
    network = read_settings()
    options = BuildOptions(base="archive", network=network, no_cache=True)
    made = base.ensure(catalog.suites_for(image)[0].name, engine, on_message=say)
    store = "containerd" if engine.info.is_containerd_store else "overlay2"
    result: dict[str, object] = {
        "image": image.name,
        "packages": len(lock.packages),
        "store": store,
        "engine": engine.info.version,
        "cpus": engine.info.cpus,
        "base": made.reference,
    }

    say("limit: uv into a folder")
    result["limit_s"] = round(limit_seconds(lock, network), 1)
    with tempfile.TemporaryDirectory() as folder, local_registry(Path(folder)) as registry:
        docker(engine, "buildx", "prune", "--all", "--force")
        say("kit build")
        with BuildDisplay(Options(), image.name) as progress:
            ours_s = timed(lambda: build(catalog, image, engine, options, progress))
        ours = push_sizes(engine, registry, image.reference, image.name)
        result |= {"kit_s": round(ours_s, 1), "kit_bytes": sum(ours.values())}
        say(f"  {ours_s:.1f} s, {sum(ours.values()) / 1e9:.2f} GB")

        say(f"one more package ({ONE_MORE})")
        more_s = one_more_package(image, engine, BuildOptions(base="archive", network=network))
        more = push_sizes(engine, registry, image.reference, image.name)
        again = sum(size for digest, size in more.items() if digest not in ours)
        result |= {
            "one_more_s": round(more_s, 1),
            "one_more_bytes": again,
            "one_more_share": round(again / sum(more.values()), 4),
        }
        say(f"  {more_s:.1f} s, {again / 1e6:.1f} MB to push again")

        if not arguments.skip_naive:
            docker(engine, "buildx", "prune", "--all", "--force")
            say("as people write it: one pip install --no-cache-dir")
            naive_s = timed(lambda: build_naive(engine, made.reference, pins(lock), network, "kit-bench/naive:latest"))
            naive = push_sizes(engine, registry, "kit-bench/naive:latest", "naive")
            docker(engine, "rmi", "kit-bench/naive:latest")
            result |= {
                "naive_s": round(naive_s, 1),
                "naive_bytes": sum(naive.values()),
                "time_ratio": round(ours_s / naive_s, 3),
                "bytes_ratio": round(sum(ours.values()) / sum(naive.values()), 3),
            }
            say(f"  {naive_s:.1f} s, {sum(naive.values()) / 1e9:.2f} GB")
        docker(engine, "rmi", image.reference)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
