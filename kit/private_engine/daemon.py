"""Starts and stops the private engine, and removes everything it made.

The daemon runs in a mount namespace of its own, so that no mount of its containers is ever seen, or left, on the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kit import accounts, apt, files, mounts, paths, process, procs
from kit.errors import BadInputError, DiskFullError, EngineError, KitError, UnsupportedHostError
from kit.private_engine import engine_paths, is_up, machine, processes, programs, programs_of, read_state, subnet
from kit.private_engine.settings import STORES, EnginePaths, Programs, Store, daemon_configuration

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 45
# Registries on this machine itself speak plain HTTP.
INSECURE_REGISTRIES = ("127.0.0.0/8", "::1/128")


def up(
    *,
    store: Store | None = None,
    registry_mirrors: Sequence[str] = (),
    insecure_registries: Sequence[str] = (),
    update: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Start the engine, its programs downloaded first if need be; True when it was started, False when it was up.

    It is for who called sudo, if it was by sudo: also one that root had started, and never one that another has.
    What a killed engine left behind is cleared away first. Calls at the same time wait for each other. Raises
    UnsupportedHostError where it cannot run, with what to install instead; EngineError when it does not start.
    """
    if os.geteuid() != 0 and store is None and not (registry_mirrors or insecure_registries or update) and is_up():
        return False
    programs.check_host()
    _require_root("up")
    here = engine_paths()
    os.umask(0o022)  # other users have to get at the programs, and may write nothing; whatever root's is
    here.folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # the lock's; every user may use what is in it
    with files.locked(here.lock_file, say=say):
        if is_up():
            running = str(read_state(here).get("store", ""))
            if store not in (None, running):
                raise BadInputError(
                    f"the private engine is up with the {running} store, not with {store}",
                    hint="run `kit engine down` first; each store keeps its own images",
                )
            if update or registry_mirrors or insecure_registries:
                raise BadInputError(
                    "the private engine is up already, and would keep its programs and registries",
                    hint="run `kit engine down` first",
                )
            if here.socket.stat().st_uid == 0:
                _give_to_caller(here)
            return False
        ready = programs.ensure(programs_of(here).folder, say=say, update=update)
        _clear(here, ready)
        say("starting the private engine")
        try:
            _start(here, ready, store, registry_mirrors, insecure_registries)
        except BaseException:
            _clear(here, ready)
            raise
    return True


def down(*, purge: bool = False, say: Callable[[str], None] = lambda _: None) -> bool:
    """Stop the engine's containers and the engine; True when it was up. Nothing it made on the machine stays.

    Images and stopped containers are kept for the next `up`, unless `purge` deletes everything in its folder.
    """
    here = engine_paths()
    if not here.folder.is_dir():
        return False
    _require_root("down")
    with files.locked(here.lock_file, say=say):
        was_up = is_up()
        if was_up:
            say("stopping the private engine and its containers")
        _clear(here, programs_of(here))
        if purge:
            say(f"deleting {here.folder}")
            _delete(here)
    return was_up


def _require_root(command: str) -> None:
    if os.geteuid() == 0:
        return
    if shutil.which("sudo"):
        raise UnsupportedHostError(
            "the private engine needs root",
            hint=f"run `sudo -E kit engine {command}`; afterwards kit and docker work as you, without sudo",
        )
    raise UnsupportedHostError(
        "the private engine needs root, and there is no sudo on this machine",
        hint="ask an administrator to run `kit engine up`, or install rootless Docker or Podman",
    )


def _start(
    here: EnginePaths,
    ready: Programs,
    store: Store | None,
    registry_mirrors: Sequence[str],
    insecure_registries: Sequence[str],
) -> None:
    before, iptables = read_state(here), _iptables(ready)
    store = store or before.get("store") or "containerd"
    pool = subnet.choose_pool(subnet.taken_networks(), str(before.get("pool", "")))
    plan = subnet.Plan(bridge=here.bridge, chain=here.chain, pool=pool)
    mtu = subnet.uplink_mtu()
    search_path = os.pathsep.join([str(ready.bin), apt.search_path()])
    for folder in (here.folder, here.run, here.data(store).parent):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
    for folder in machine.SHADOWED:
        shadow(here, folder).mkdir(exist_ok=True)
    runtime = shutil.which("nvidia-container-runtime", path=search_path)
    init = next((ready.bin / name for name in ("docker-init", "tini-static") if (ready.bin / name).exists()), None)
    paths.write_text(
        here.daemon_file,
        daemon_configuration(
            here,
            plan,
            store=store,
            mtu=mtu,
            proxy_program=ready.bin / "docker-proxy",
            init_program=init,
            registry_mirrors=registry_mirrors,
            insecure_registries=(*INSECURE_REGISTRIES, *insecure_registries),
            runtimes={"nvidia": runtime} if runtime else {},
        ),
        mode=0o600,
    )
    state: dict[str, Any] = {"store": store, "pool": str(plan.pool), "iptables": iptables}
    paths.write_text(here.state_file, json.dumps(state))
    if here.log_file.is_file():
        here.log_file.replace(here.log_file.with_suffix(".log.1"))
    machine.enter(here.id, os.getpid(), iptables)
    subnet.add_bridge(plan, mtu)
    subnet.add_rules(plan, iptables)
    mark, _, value = here.mark.partition("=")
    pid = process.start_daemon(
        ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-ec", start_script(here)],
        log_file=here.log_file,
        env={"PATH": search_path, mark: value},
    )
    paths.write_text(here.state_file, json.dumps({**state, "pid": pid}))
    machine.settle(here.id, pid)
    processes.wait_until(lambda: is_up() or not procs.is_alive(pid), START_TIMEOUT_S)
    if not is_up():
        raise _start_error(here)
    _give_to_caller(here)


def _give_to_caller(here: EnginePaths) -> None:
    """The engine is for who called sudo, and for root: nobody else may own the machine by it."""
    if user := accounts.sudo_user():
        os.chown(here.socket, user[0], -1)


def shadow(here: EnginePaths, folder: Path) -> Path:
    """What the engine sees in place of one of the folders that every Docker would share."""
    return here.run / f"{folder.parent.name}-{folder.name}"


def start_script(here: EnginePaths) -> str:
    """The shell script that becomes the daemon, inside its own mount namespace."""
    lines = ["umask 022", "cd /"]
    lines += [f"mount -n --bind {shlex.quote(str(shadow(here, folder)))} {folder}" for folder in machine.SHADOWED]
    return "\n".join([*lines, f"exec dockerd --config-file {shlex.quote(str(here.daemon_file))}"])


def _iptables(ready: Programs) -> str:
    own = [str(ready.bin / name) for name in ("iptables", "iptables-legacy") if (ready.bin / name).exists()]
    return subnet.working_iptables([*own, *filter(None, [shutil.which("iptables", path=apt.search_path())])])


def _start_error(here: EnginePaths) -> KitError:
    lines = here.log_file.read_text(errors="replace").splitlines() if here.log_file.is_file() else []
    last = tuple(line[-300:] for line in lines[-8:])
    if any("no space left on device" in line.lower() for line in lines):
        return DiskFullError(
            f"no space left in {here.folder}",
            details=last,
            hint="free some space there, set KIT_ENGINE_DIR to a folder on a larger disk, or delete all that is in the "
            "engine: `kit engine down --purge`",
        )
    return EngineError("the private engine did not start", details=last, hint=f"its log is {here.log_file}")


def _clear(here: EnginePaths, found: Programs) -> None:
    """End everything of the engine's and remove what it made; whatever state it is in, and again if need be."""
    pid = _daemon_pid(here)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        processes.wait_until(lambda: not procs.is_alive(pid), STOP_TIMEOUT_S)
    procs.kill(lambda: processes.belonging_to(here.mark, here.cgroup), within_s=20)  # a shim may be starting another
    processes.remove_cgroups(here.cgroup)
    names = [entry.name for entry in subnet.CLASS_NET.iterdir()]
    for store in STORES:
        with contextlib.suppress(OSError):
            database = (here.data(store) / "network/files/local-kv.db").read_bytes()
            for bridge in subnet.bridges_of(names, database):
                subnet.remove_bridge(bridge)
    subnet.remove_bridge(here.bridge)
    state = read_state(here)
    iptables = ""
    if state.get("iptables"):
        with contextlib.suppress(KitError):
            iptables = _iptables(found)
            subnet.remove_rules(here.chain, iptables)
    for store in STORES:
        mounts.unmount_below(here.data(store))
    mounts.remove_tree(here.run)
    machine.leave(here.id, iptables)
    if "pid" in state:
        # On a full or read-only disk it stays: a number that no process of the engine's has means nothing.
        with contextlib.suppress(OSError):
            paths.write_text(here.state_file, json.dumps({k: v for k, v in state.items() if k != "pid"}))


def _daemon_pid(here: EnginePaths) -> int:
    """The daemon's PID, 0 when it is not running: a recycled PID is some other program's, and is not taken for it."""
    pid = int(read_state(here).get("pid", 0))
    return pid if pid and pid in processes.belonging_to(here.mark, here.cgroup) and procs.is_alive(pid) else 0


def _delete(here: EnginePaths) -> None:
    for entry in here.folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            mounts.remove_tree(entry)
        else:
            entry.unlink(missing_ok=True)
    # A mount point stays.
    with contextlib.suppress(OSError):
        here.folder.rmdir()
    if here.folder.is_dir() and (left := sorted(entry.name for entry in here.folder.iterdir())):
        raise EngineError(
            f"not all of {here.folder} could be deleted",
            details=tuple(left),
            hint="is its disk read-only, or something in it in use?",
        )
