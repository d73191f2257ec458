"""`kit bench` on the host: run the measuring code in a container of the image, or in a Python of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import kit
from kit import process
from kit.bench import compare, results, saved, verdicts
from kit.bench.expectations import Tables, expectations
from kit.bench.results import Result
from kit.catalog import Catalog
from kit.catalog.rows import SHORT_NAMES, Image
from kit.engine import Engine
from kit.errors import BadInputError, EngineError, IncompatibleError, KitError
from kit.labels import BASE, FINGERPRINT
from kit.run.containers import user_inside
from kit.run.lease import reserved
from kit.run.prepare import Ready, new_name, place_on
from kit.spec.container import Mount, describe, fresh_volumes
from kit.spec.gpu_request import NO_GPUS, GpuRequest
from kit.spec.request import RunRequest

# Where kit's own package is in the container. Only kit.bench is imported there.
PACKAGE, PYTHONPATH = "/opt/kit/bench/kit", "/opt/kit/bench"
RESULT_FILE = "result.json"
NO_GPU_CODE, WRONG_USE_CODE = 3, 2
CPU_HINT = "--device cpu runs the same code at small sizes; it says nothing of speed"
# Beyond what the tests themselves take: starting, importing, compiling from PTX (TensorFlow on a GPU newer than it).
PATIENCE_S = 3600.0
LAST_LINES = 12


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What to measure, in kit's terms."""

    image: Image
    device: str  # cuda or cpu
    only: tuple[str, ...] = ()
    shapes: str = ""
    soak_minutes: float = 0.0

    def arguments(self) -> list[str]:
        """The options of `python -m kit.bench`."""
        found = [f"--framework={SHORT_NAMES[self.image.framework]}", f"--device={self.device}", "--quiet"]
        found += [f"--only={','.join(self.only)}"] if self.only else []
        found += [f"--shapes={self.shapes}"] if self.shapes else []
        found += [f"--soak={self.soak_minutes:g}"] if self.soak_minutes else []
        return found


def gpus_for(device: str, gpus: GpuRequest | None) -> GpuRequest | None:
    """What to ask for to measure a device, cuda or cpu. Raises BadInputError when `--gpus` contradicts it."""
    if device == "cpu":
        if gpus is not None and not gpus.is_none:
            raise BadInputError(
                f"--device cpu and --gpus {gpus.text} contradict each other", hint="leave one of them out"
            )
        return NO_GPUS
    if gpus is not None and gpus.is_none:
        raise BadInputError("--gpus none leaves nothing to measure", hint=CPU_HINT)
    return gpus


def require_gpu_image(image: Image) -> None:
    """Raise IncompatibleError for an image that no GPU works with."""
    if not image.is_gpu:
        raise IncompatibleError(f"{image.name} is built for the CPU: there is no GPU to measure", hint=CPU_HINT)


def require_gpu(ready: Ready) -> None:
    """Raise IncompatibleError when a container of the image would get no GPU."""
    if not ready.gpus.grant.devices:
        raise IncompatibleError("this host has no NVIDIA GPU that a container could use", hint=CPU_HINT)


def rated(result: Result, catalog: Catalog, image: results.MeasuredImage | None) -> Result:
    """A fresh result with what the catalog expects of the device, judged by it, and the image it came from."""
    found = None
    if result.device.kind == "cuda":
        tables = Tables(gpus=catalog.gpus, rates=catalog.rates, references=catalog.references)
        found = expectations(result.device, result.framework.name, tables)
    return verdicts.judged(replace(result, image=image, expectations=found))


def image_facts(ready: Ready) -> results.MeasuredImage:
    """What the engine knows of the image that was measured."""
    image, engine = ready.image, ready.engine
    reference = ready.reference or image.reference
    labels = engine.image_labels(reference) or {}
    return results.MeasuredImage(
        name=image.name,
        reference=reference,
        id=engine.image_id(reference),
        base=labels.get(BASE, ""),
        fingerprint=labels.get(FINGERPRINT, ""),
        kit=kit.__version__,
    )


def measure_inside(request: BenchRequest, ready: Ready, say: Callable[[str], None]) -> Result:
    """The result of a container of the image, started as `kit run` starts one; `say` gets each line it prints.

    Raises IncompatibleError when it finds no GPU, EngineError when it leaves no result.
    """
    engine, user = ready.engine, user_inside(ready.engine)
    with engine.scratch(user) as folder:
        started = RunRequest(
            image=ready.image,
            reference=ready.reference,
            additions=ready.additions,
            folder=Path(folder),
            user=user,
            network=ready.network,
            has_input=False,
            command=("python", "-m", "kit.bench", *request.arguments(), f"--save={RESULT_FILE}"),
            mounts=(Mount(source=engine.provide(package_folder()), target=PACKAGE, read_only=True),),
            volumes=fresh_volumes(user.partition(":")[0]),
            environment=(("PYTHONPATH", PYTHONPATH), ("PYTHONDONTWRITEBYTECODE", "1")),
        )
        place = place_on(engine, started)
        printed: list[str] = []

        def on_line(line: str) -> None:
            printed.append(line)
            say(line)

        with reserved(ready.gpus, engine, say) as (granted, release):
            # Detached, so that others may choose their GPUs as soon as this one has its own.
            spec = replace(describe(started, place, granted, name=new_name(started)), remove=False)
            if granted.note:
                say(granted.note)
            try:
                engine.run_detached(spec)
                release()
                _follow(engine, spec.name, on_line)
                code = wait(engine, spec.name)
            finally:
                engine.remove(spec.name, force=True)
        text = engine.read_text(f"{folder}/{RESULT_FILE}")
        return rated(result_of(text, code, printed), ready.catalog, image_facts(ready))


def _follow(engine: Engine, name: str, on_line: Callable[[str], None]) -> None:
    """Hand on each line that a container prints, until it ends."""
    rest: dict[int, bytes] = {}
    with engine.log(name, follow=True) as frames:
        for kind, data in frames:
            *lines, rest[kind] = (rest.get(kind, b"") + data).split(b"\n")
            for line in lines:
                on_line(line.decode(errors="replace"))
    for last in filter(None, rest.values()):
        on_line(last.decode(errors="replace"))


def wait(engine: Engine, name: str) -> int:
    """The exit code of a container, when it has ended."""
    return int(engine.call(["wait", name], timeout_s=PATIENCE_S).strip() or 0)


def measure_outside(
    request: BenchRequest, python: str, catalog: Catalog, say: Callable[[str], None], *, gpu: str = ""
) -> Result:
    """The result of a Python of this machine that has the framework; `gpu` is the UUID of the one to measure.

    Raises IncompatibleError when it finds no GPU, BadInputError when it has no such framework.
    """
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as name:
        folder = Path(name)
        printed: list[str] = []

        def on_line(line: str) -> None:
            printed.append(line)
            say(line)

        environment = {"PYTHONPATH": str(package_folder().parent), "PYTHONDONTWRITEBYTECODE": "1"}
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        code = process.stream(
            [python, "-m", "kit.bench", *request.arguments(), f"--save={folder / RESULT_FILE}"],
            on_line,
            env=environment,
            cwd=folder,
            timeout_s=PATIENCE_S,
        )
        file = folder / RESULT_FILE
        text = file.read_text(encoding="utf-8") if file.is_file() else None
        return rated(result_of(text, code, printed), catalog, None)


def result_of(text: str | None, code: int, printed: Sequence[str]) -> Result:
    """What a run left, which is None without a result. Raises the kind of error its exit code stands for."""
    if text is not None:
        return saved.parse(text, "the result")
    errors = [line.removeprefix("error: ") for line in printed if line.startswith("error: ")]
    last = tuple(printed[-LAST_LINES:])
    if code == NO_GPU_CODE and errors:
        raise IncompatibleError(errors[-1], hint=CPU_HINT)
    if code == WRONG_USE_CODE:
        raise BadInputError(errors[-1] if errors else "the measuring program refused its options", details=last)
    raise EngineError(f"the measuring program ended with exit code {code} and left no result", details=last)


def package_folder() -> Path:
    """The folder of kit's own package."""
    return Path(kit.__path__[0])


def require_host_python(image: Image, python: str) -> None:
    """Raise BadInputError, with how to make one, when a Python of this machine lacks the image's framework."""
    module = image.framework
    try:
        done = process.run(
            [python, "-c", f"import importlib.util as u; print(bool(u.find_spec('{module}')))"], timeout_s=60
        )
    except KitError as e:
        raise BadInputError(f"--host-python {python}: {e.message}") from None
    if done.stdout.strip() != "True":
        lock = f"images/{image.name}/requirements.lock"
        raise BadInputError(
            f"{python} has no {module}, so there is nothing to compare the container with",
            hint=f"install the same lock outside: `uv venv host && uv pip install --python host/bin/python "
            f"--require-hashes -r {lock}`, then --host-python host/bin/python",
        )


@dataclass(frozen=True, kw_only=True)
class HostComparison:
    """Runs inside and outside a container in turn, and what they say."""

    pairs: tuple[tuple[Result, Result], ...]
    ratios: tuple[compare.PairedRatio, ...]
    differences: tuple[str, ...]  # between inside and outside, beside the container

    def as_json(self) -> dict[str, Any]:
        return {
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "differences": list(self.differences),
            "pairs": [
                {"inside": results.as_json(inside), "outside": results.as_json(outside)}
                for inside, outside in self.pairs
            ],
        }


def compare_with_host(
    measure_in: Callable[[], Result], measure_out: Callable[[str], Result], pairs: int
) -> HostComparison:
    """Pairs of runs, the order turned round each time so that a machine that warms up favours neither."""
    found: list[tuple[Result, Result]] = []
    for number in range(pairs):
        if number % 2:
            outside = measure_out(_uuid(found[0][0]))
            found.append((measure_in(), outside))
        else:
            inside = measure_in()
            found.append((inside, measure_out(_uuid(inside))))
    return HostComparison(
        pairs=tuple(found),
        ratios=tuple(compare.paired_ratios(found)),
        differences=tuple(compare.differences(*found[0])),
    )


def _uuid(result: Result) -> str:
    device = result.device
    return f"{'MIG' if device.is_mig else 'GPU'}-{device.uuid}" if device.uuid else ""
