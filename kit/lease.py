"""Leases: the GPUs a new container gets, and the machine-wide lock by which no two get the same one.

A lease is a label on the container (`kit.lease`), so it lasts as long as the container is there and runs, and every
user of the same engine sees it. Engines of their own (rootless ones) do not see each other's leases, only processes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit import files, gpus
from kit.engine import Engine, EngineInfo
from kit.errors import GpuUnavailableError, UnsupportedHostError
from kit.gpu import HIDDEN, Injection, devices_in, host_has_gpu, inject, parse_request
from kit.labels import LEASE, OWNER_NAME

if TYPE_CHECKING:
    from kit.gpu import GpuRequest
    from kit.gpus import Unit
    from kit.host.model import GpuContainer, Host

# Only folders that every user of the machine may write to: all must come to the same file.
LOCK_FOLDERS = (Path("/run/lock"), Path("/tmp"))
LOCK_NAME = "kit-gpus.lock"
# One start holds the lock for about a second, so this many seconds serve a whole class that starts at once.
LOCK_WAIT_S = 120.0
LOCK_NOTICE_S = 2.0


# The same on another machine, in its shell: the file is made with its mode from its first moment on.
_REMOTE_LOCK = """
for folder in $folders; do
    case "$(ls -ld "$folder/")" in d??????rwt*) break ;; esac
done
file="$folder/$name"
if [ ! -e "$file" ]; then
    beside="$(mktemp "$folder/.$name.XXXXXX")" && chmod 444 "$beside" && ln "$beside" "$file" 2>/dev/null
    rm -f "$beside"
fi
exec 9<"$file" && flock -w "$wait" 9 && echo held && exec cat >/dev/null
exit 1
"""


def is_lease(request: str | None) -> bool:
    """True when a value of `--gpus` leaves the choice to kit, so that the container leases what it gets."""
    return request is not None and parse_request(request).is_lease


def lock_file(folders: tuple[Path, ...] = LOCK_FOLDERS) -> Path:
    """The machine's lock file, in the first folder that is sticky and open to all. Raises UnsupportedHostError."""
    wanted = stat.S_ISVTX | stat.S_IWOTH
    for folder in folders:
        with contextlib.suppress(OSError):
            if folder.stat().st_mode & wanted == wanted:
                return folder / LOCK_NAME
    raise UnsupportedHostError(
        f"none of {', '.join(map(str, folders))} is a folder that every user may write to",
        hint="`sudo chmod 1777 /tmp`, or name a GPU instead of having one chosen: --gpus device=0",
    )


@contextlib.contextmanager
def locked(
    path: Path, *, wait_s: float = LOCK_WAIT_S, on_wait: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[], None]]:
    """Hold the lock on a file until the block ends, or until the function it is given is called.

    Raises GpuUnavailableError when the file cannot be used, or is held for longer than `wait_s` seconds.
    """
    handle = _lock(path, wait_s, on_wait)
    held = [handle]

    def release() -> None:
        while held:
            os.close(held.pop())

    try:
        yield release
    finally:
        release()


@contextlib.contextmanager
def held(engine: Engine, *, on_wait: Callable[[str], None] = lambda _: None) -> Iterator[Callable[[], None]]:
    """Hold the lock of the engine's machine, as `locked` does."""
    if engine.connection is None:
        with locked(lock_file(), on_wait=on_wait) as release:
            yield release
        return
    from kit import process

    connection = engine.connection
    script = f"wait={LOCK_WAIT_S:g}\nname={LOCK_NAME}\nfolders='{' '.join(map(str, LOCK_FOLDERS))}'\n{_REMOTE_LOCK}"
    # The lock is let go when its input ends: then at the latest when this process, or the connection, does.
    with process.beside(connection.command("sh -s", "-T"), input=script, env={"LC_ALL": "C"}) as (next_line, end):
        line = next_line(LOCK_NOTICE_S)
        if line is None:
            on_wait(f"waiting for another `kit run` on {engine.target} that is choosing its GPUs")
            line = next_line(LOCK_WAIT_S + 10)
        if line != "held":
            said = tuple(end().strip().splitlines()[-3:])
            raise GpuUnavailableError(
                f"no GPU can be chosen on {engine.target}: its lock ({LOCK_NAME}) cannot be had",
                details=said,
                hint="--gpus device=0 names a GPU without the lock",
            )

        def let_go() -> None:
            end()

        yield let_go


def _lock(path: Path, wait_s: float, on_wait: Callable[[str], None]) -> int:
    is_told = False

    def tell(passed: float) -> None:
        nonlocal is_told
        if passed > LOCK_NOTICE_S and not is_told:
            on_wait("waiting for another `kit run` of this machine that is choosing its GPUs")
            is_told = True

    handle = files.acquire(path, wait_s=wait_s, on_wait=tell, opened=_open)
    if handle is None:
        raise GpuUnavailableError(
            f"another process has held {path} for {wait_s:g} s, so no GPU can be chosen",
            hint="`sudo lslocks` shows which one; --gpus device=0 names a GPU without the lock",
        )
    return handle


def _open(path: Path) -> int:
    """Open the lock file to read, which is enough to lock it, and make it where it is missing."""
    hint = f"`ls -l {path}` shows it, `sudo rm {path}` removes it; --gpus device=0 names a GPU without the lock"
    try:
        # Without O_CREAT: fs.protected_regular refuses that on another user's file in a sticky folder, root too.
        # O_NONBLOCK: a FIFO in its place would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        _make(path)
        return _open(path)
    except OSError as e:
        raise GpuUnavailableError(f"cannot open the lock file {path}: {e.strerror}", hint=hint) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise GpuUnavailableError(f"{path} is no regular file, so it cannot be kit's lock", hint=hint)
    return handle


def _make(path: Path) -> None:
    """Make the lock file with its mode from its first moment on: readable by all, writable by none."""
    import tempfile

    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            os.fchmod(handle, 0o444)
            with contextlib.suppress(FileExistsError):
                Path(path).hardlink_to(name)
        finally:
            os.close(handle)
            Path(name).unlink()
    except OSError as e:
        raise GpuUnavailableError(
            f"cannot make the lock file {path}: {e.strerror}", hint="--gpus device=0 names a GPU without the lock"
        ) from None


def holders(engine: Engine) -> tuple[GpuContainer, ...]:
    """The containers that lease GPUs now, whoever started them, with their users' names."""
    from kit.host.model import GpuContainer

    found = tuple(
        GpuContainer(
            name=container.name,
            id="",
            image=container.labels.get("kit.image", ""),
            service=container.labels.get("kit.service", ""),
            user=container.labels.get(OWNER_NAME) or container.labels.get("kit.user", ""),
            status=container.status,
            lease=tuple(container.labels.get(LEASE, "").split()),
        )
        for container in engine.containers(label=LEASE)
        if container.status in gpus.HOLDING
    )
    return gpus.with_user_names(found, user_name)


def user_name(uid: int) -> str:
    """The name of a user of this machine; empty when it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def decide(
    request: str | None, engine: Engine, *, is_gpu_image: bool, image: str, host: Host | None = None
) -> Injection:
    """The GPUs of a container, and what the user should know of them.

    `request` None means what the host has, or what CUDA_VISIBLE_DEVICES leaves of it. `host` saves reading it again.
    For a lease the caller holds the lock, or asks only whether there is a GPU. Raises what stands against the request.
    """
    if request is None and not is_gpu_image:
        return Injection()  # without asking the engine, which takes as long as a tenth of the start
    wanted = parse_request(request) if request is not None else None
    # A scheduler's job is on this machine.
    visible = None if engine.target else gpus.visible(os.environ)
    if is_gpu_image and wanted and wanted.is_lease:
        return _leased(wanted, engine, visible, host)
    if is_gpu_image and wanted is None and visible is not None:
        return _visible(engine, visible, host)
    has_gpu = _has_gpu(engine, host) if is_gpu_image else False
    found = inject(wanted, engine_info(engine), is_gpu_image=is_gpu_image, has_gpu=has_gpu, image=image)
    names = wanted.names if wanted and wanted.names else ("all",)
    return _with_warning(found, engine, names, host) if found.arguments else found


def _has_gpu(engine: Engine, host: Host | None) -> bool:
    """Whether the engine's machine has an NVIDIA driver loaded."""
    return bool(_read(host, engine).driver) if engine.target else host_has_gpu()


def engine_info(engine: Engine) -> EngineInfo:
    """What the engine says of itself; CDI devices that it does not list are read from the files over there."""
    info = engine.info
    if engine.connection and info.cdi_spec_dirs and not info.cdi_devices:
        script = (
            'for folder; do for file in "$folder"/*.yaml "$folder"/*.yml "$folder"/*.json; do cat "$file"; done; done'
        )
        read = engine.connection.run(f"{{ {script}; }} 2>/dev/null", arguments=info.cdi_spec_dirs, check=False).stdout
        return replace(info, cdi_devices=devices_in(read), cdi_spec_dirs=())
    return info


def _read(host: Host | None, engine: Engine, *, with_use: bool = False) -> Host:
    if host is not None:
        return host
    from kit.host import read_gpus

    return read_gpus(engine.target, with_use=with_use, engine=None if engine.target else engine)


def _devices(units: tuple[Unit, ...], *, is_job: bool) -> tuple[tuple[str, ...], ...]:
    """The names an engine may know units by. In a scheduler's job the UUID alone: a job that sees only its own GPUs
    counts them from 0, and the engine, which sees all, would take others.
    """
    return tuple((unit.uuid, unit.index) if unit.index and not is_job else (unit.uuid,) for unit in units)


def _leased(request: GpuRequest, engine: Engine, visible: tuple[str, ...] | None, host: Host | None) -> Injection:
    if not engine.is_local and not engine.target:
        raise UnsupportedHostError(
            f"--gpus {request.text}: the container engine is on another machine, where nobody here sees what is free",
            hint="reach it with --host, or name GPUs: --gpus device=0",
        )
    found = gpus.units(_read(host, engine, with_use=True), holders(engine))
    if visible is not None:
        found = gpus.named(found, visible)
        if not found:
            raise GpuUnavailableError(
                f"--gpus {request.text}: {gpus.VISIBLE}={os.environ[gpus.VISIBLE]} leaves no GPU to choose from",
                hint="ask the scheduler for one, or unset it where there is no scheduler",
            )
    chosen = gpus.choose(found, request)
    devices = _devices(chosen, is_job=visible is not None)
    injection = inject(request, engine_info(engine), is_gpu_image=True, has_gpu=True, devices=devices)
    return replace(injection, lease=tuple(unit.uuid for unit in chosen), note=gpus.choice_note(chosen))


def _visible(engine: Engine, names: tuple[str, ...], host: Host | None) -> Injection:
    said = f"{gpus.VISIBLE}={os.environ[gpus.VISIBLE]}"
    if not names:
        return Injection(environment=HIDDEN, note=f"{said} leaves no GPU: running on the CPU")
    there = gpus.units(_read(host, engine))
    missing = [name for name in names if not gpus.named(there, [name])]
    if there and missing:
        raise GpuUnavailableError(
            f"{said} names {', '.join(missing)}, which this host does not have",
            details=tuple(f"{unit.label}: {unit.uuid}" for unit in there),
            hint="correct or unset it, or say which: --gpus all",
        )
    # Where the driver cannot be asked, the engine may know the names. CUDA_VISIBLE_DEVICES may count the job's GPUs
    # alone; SLURM_JOB_GPUS counts those of the whole machine, as the engine does (slurm.schedmd.com/sbatch.html).
    if not there and all(name.isdecimal() for name in names) and (job := os.environ.get("SLURM_JOB_GPUS")):
        names = tuple(job.split(","))
    chosen = gpus.named(there, names)
    devices = _devices(chosen, is_job=True) if chosen else tuple((name,) for name in names)
    found = inject(None, engine.info, is_gpu_image=True, has_gpu=host_has_gpu(), devices=devices)
    if not found.arguments:
        return found
    which = ", ".join(unit.label for unit in chosen) or f"GPU {', '.join(names)}"
    found = replace(found, note=f"{which} only, as {said} says; --gpus all takes every GPU")
    return _with_warning(found, engine, tuple(unit.uuid for unit in chosen) or names, host)


def _with_warning(injection: Injection, engine: Engine, names: tuple[str, ...], host: Host | None) -> Injection:
    """The same with a line for each other container that leases the GPUs of these names."""
    leasing = holders(engine)
    if leasing and names != ("all",):
        shared = gpus.named(gpus.units(_read(host, engine), leasing), names)
        leasing = tuple(container for unit in shared for container in unit.leases)
    lines = [line for line in (injection.note, gpus.lease_warning(leasing)) if line]
    return replace(injection, note="\n".join(lines))
