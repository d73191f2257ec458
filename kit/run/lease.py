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

from kit import accounts, files, labels
from kit.decide import gpus
from kit.engine import Engine
from kit.errors import GpuUnavailableError, NetworkError, UnsupportedHostError
from kit.frozen import dataclass
from kit.host import host_has_gpu, read_gpus
from kit.run.containers import sweep
from kit.spec.gpu_grant import HIDDEN, HIDDEN_GPUS, GpuGrant, grant, refuse_cpu_image

if TYPE_CHECKING:
    from kit import process
    from kit.catalog.rows import Image
    from kit.decide.gpus import Unit
    from kit.facts.host import GpuContainer, Host
    from kit.spec.gpu_request import GpuRequest

# Only folders that every user of the machine may write to: all must come to the same file.
LOCK_FOLDERS = (Path("/run/lock"), Path("/tmp"))
LOCK_NAME = "kit-gpus.lock"
# One start holds the lock for about a second, so this many seconds serve a whole class that starts at once.
LOCK_WAIT_S = 120.0
LOCK_NOTICE_S = 2.0


# The same on another machine, in the shell that kit keeps there: the file is made with its mode from its first moment
# on. The lock is let go at the latest when that shell ends, and so when this process or the connection does.
_REMOTE_LOCK = """
wait=$1 name=$2; shift 2
lock() {
for folder; do
    case "$(ls -ld "$folder/")" in d??????rwt*) break ;; esac
done
file="$folder/$name"
if [ ! -e "$file" ]; then
    beside="$(mktemp "$folder/.$name.XXXXXX")" && chmod 444 "$beside" && ln "$beside" "$file" 2>/dev/null
    rm -f "$beside"
fi
# What a link or a FIFO of another user's leads to is not the lock.
[ -f "$file" ] && [ ! -L "$file" ] || { ls -l "$file" >&2; return 1; }
{ command exec 9<"$file"; } && flock -w "$wait" 9
}
lock "$@"
"""


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
    is_told = False

    def tell(passed: float) -> None:
        nonlocal is_told
        if passed > LOCK_NOTICE_S and not is_told:
            on_wait("waiting for another `kit run` of this machine that is choosing its GPUs")
            is_told = True

    handle = files.acquire(path, wait_s=wait_s, on_wait=tell, opened=_open)
    if handle is None:
        raise GpuUnavailableError(
            f"{files.holder(path)} has held {path} for {wait_s:g} s, so no GPU can be chosen",
            hint="run the command again when that has ended; --gpus device=0 names a GPU without the lock",
        )
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
    connection, machine = engine.connection, engine.target
    folders = tuple(map(str, LOCK_FOLDERS))

    def done(wait_s: float) -> process.Completed:
        words = (f"{wait_s:g}", LOCK_NAME, *folders)
        return connection.run(_REMOTE_LOCK, arguments=words, timeout_s=wait_s + 10, check=False, stays=True)

    found = done(LOCK_NOTICE_S)
    if found.returncode and not found.stderr:
        on_wait(f"waiting for another `kit run` on {machine} that is choosing its GPUs")
        found = done(LOCK_WAIT_S)
    if found.returncode:
        raise GpuUnavailableError(
            f"no GPU can be chosen on {machine}: its lock ({LOCK_NAME}) cannot be had",
            details=tuple(found.stderr.strip().splitlines()[-3:]),
            hint="--gpus device=0 names a GPU without the lock",
        )
    held = [True]

    def let_go() -> None:
        if held and connection.has_shell:
            with contextlib.suppress(NetworkError):
                connection.run("exec 9<&-", check=False, stays=True)
        held.clear()

    try:
        yield let_go
    finally:
        let_go()


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
    from kit.facts.host import GpuContainer

    found = tuple(
        GpuContainer(
            name=container.name,
            id="",
            image=container.labels.get(labels.IMAGE, ""),
            service=container.labels.get(labels.SERVICE, ""),
            user=container.labels.get(labels.OWNER_NAME) or container.labels.get(labels.USER, ""),
            status=container.status,
            lease=tuple(container.labels.get(labels.LEASE, "").split()),
        )
        for container in engine.containers(label=labels.LEASE)
        if container.status in gpus.HOLDING
    )
    return gpus.with_user_names(found, accounts.user_name)


@dataclass(frozen=True, kw_only=True)
class GpuDecision:
    """What a container will be given of GPUs. What kit is to choose itself is chosen once more when it starts, under
    the machine's lock.
    """

    grant: GpuGrant
    request: GpuRequest | None = None
    host: Host | None = None  # who uses which GPU, as it was just read; None: read it when it matters

    @property
    def is_lease(self) -> bool:
        return self.request is not None and self.request.is_lease


def no_gpus(image: Image) -> GpuDecision:
    """For what needs no GPU: TensorBoard beside a notebook."""
    return GpuDecision(grant=HIDDEN_GPUS if image.is_gpu else GpuGrant())


@contextlib.contextmanager
def reserved(
    decision: GpuDecision, engine: Engine, on_message: Callable[[str], None]
) -> Iterator[tuple[GpuGrant, Callable[[], None]]]:
    """The GPUs of a container that is started in the block. Of those kit chooses no other `kit run` of this machine
    gets one meanwhile, until the function that comes with them is called: when the engine has the container.
    """
    request = decision.request
    if request is None or not decision.is_lease:
        yield decision.grant, lambda: None
        return
    # Before the lock is held: nvidia-smi takes seconds where the driver does not stay loaded.
    host = decision.host or host_for(request, engine.target)
    with held(engine, on_wait=on_message) as release:
        sweep(engine, label=labels.LEASE)
        yield _leased(request, engine, _visible_here(engine), host), release


def host_for(request: GpuRequest | None, target: str = "") -> Host:
    """A machine with the GPUs a container may be given: none for `none`, those that are named or that
    CUDA_VISIBLE_DEVICES leaves on this one, else all; for a lease with who uses them. Raises for a `target` behind SSH
    what reaching it raises.
    """
    if request and request.is_none:
        return replace(read_gpus(target), gpus=(), pci_gpus=())
    host = read_gpus(target, with_use=bool(request and request.is_lease))
    names = request.names if request and request.names else None
    if not target and (request is None or request.is_lease):
        names = gpus.visible(os.environ)
    if names == ():
        return replace(host, gpus=(), pci_gpus=())
    wanted = tuple(dict.fromkeys(unit.gpu for unit in gpus.named(gpus.units(host), names or ("all",))))
    return replace(host, gpus=wanted) if wanted else host


def decide(request: GpuRequest | None, engine: Engine, image: Image, host: Host | None = None) -> GpuDecision:
    """The GPUs of a container, and what the user should know of them.

    `request` None means what the host has, or what CUDA_VISIBLE_DEVICES leaves of it. `host` saves reading it again.
    Raises what stands against the request.
    """
    return GpuDecision(grant=_decided(request, engine, image, host), request=request, host=host)


def _decided(request: GpuRequest | None, engine: Engine, image: Image, host: Host | None) -> GpuGrant:
    if not image.is_gpu:
        # Without asking the engine, which takes as long as a tenth of the start.
        refuse_cpu_image(request, image.name)
        return GpuGrant()
    if request and request.is_none:
        return HIDDEN_GPUS
    visible = _visible_here(engine)
    if request and request.is_lease:
        return _leased(request, engine, visible, host)
    if request is None and visible is not None:
        return _visible(engine, visible, host)
    has_driver = bool(_read(host, engine).driver) if engine.target else host_has_gpu()
    found = grant(request, engine.info, has_gpu=has_driver)
    names = request.names if request and request.names else ("all",)
    return _with_warning(found, engine, names, host) if found.devices else found


def _visible_here(engine: Engine) -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES leaves; None when it says nothing of the engine's machine: a scheduler's job is on
    this one.
    """
    return None if engine.target else gpus.visible(os.environ)


def _read(host: Host | None, engine: Engine, *, with_use: bool = False) -> Host:
    if host is not None:
        return host
    return read_gpus(engine.target, with_use=with_use, engine=None if engine.target else engine)


def _devices(units: tuple[Unit, ...], *, is_job: bool) -> tuple[tuple[str, ...], ...]:
    """The names an engine may know units by. In a scheduler's job the UUID alone: a job that sees only its own GPUs
    counts them from 0, and the engine, which sees all, would take others.
    """
    return tuple((unit.uuid, unit.index) if unit.index and not is_job else (unit.uuid,) for unit in units)


def _leased(request: GpuRequest, engine: Engine, visible: tuple[str, ...] | None, host: Host | None) -> GpuGrant:
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
    found_grant = grant(request, engine.info, has_gpu=True, devices=devices)
    return replace(found_grant, lease=tuple(unit.uuid for unit in chosen), note=gpus.choice_note(chosen))


def _visible(engine: Engine, names: tuple[str, ...], host: Host | None) -> GpuGrant:
    said = f"{gpus.VISIBLE}={os.environ[gpus.VISIBLE]}"
    if not names:
        return GpuGrant(environment=HIDDEN, note=f"{said} leaves no GPU: running on the CPU")
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
    found = grant(None, engine.info, has_gpu=host_has_gpu(), devices=devices)
    if not found.devices:
        return found
    which = ", ".join(unit.label for unit in chosen) or f"GPU {', '.join(names)}"
    found = replace(found, note=f"{which} only, as {said} says; --gpus all takes every GPU")
    return _with_warning(found, engine, tuple(unit.uuid for unit in chosen) or names, host)


def _with_warning(granted: GpuGrant, engine: Engine, names: tuple[str, ...], host: Host | None) -> GpuGrant:
    """The same with a line for each other container that leases the GPUs of these names."""
    leasing = holders(engine)
    if leasing and names != ("all",):
        shared = gpus.named(gpus.units(_read(host, engine), leasing), names)
        leasing = tuple(container for unit in shared for container in unit.leases)
    lines = [line for line in (granted.note, gpus.lease_warning(leasing)) if line]
    return replace(granted, note="\n".join(lines))
