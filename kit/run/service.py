"""Start a service that stays up, and wait until it answers."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator

from kit import layout, ports
from kit.engine import Engine
from kit.errors import NotReadyError, PortTakenError
from kit.run import mount_points
from kit.run.containers import answers, close_tunnels, service_url, sweep
from kit.run.lease import GpuDecision, reserved
from kit.run.prepare import new_name, open_ports, place_on, require_free
from kit.spec.container import ContainerSpec, describe
from kit.spec.request import RunRequest, Started, own_token

START_TRIES = 20
ANSWER_TIMEOUT_S = 90.0
# Where the services of a machine behind SSH listen, on its loopback: below the ports that systems give out by
# themselves, and drawn, so that the users of one machine do not meet. The engine keeps it over a restart, which a port
# that it chose itself would not be.
REMOTE_PORTS = (20000, 32000)


def start_service(
    request: RunRequest,
    gpus: GpuDecision,
    engine: Engine,
    on_message: Callable[[str], None],
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> Started:
    """Start a service and return when it has answered with its token; behind SSH through a tunnel, which stays.

    Raises PortTakenError when the asked port is in use, NotReadyError (with the service's last lines) when it does not
    answer within `timeout_s` seconds; the container is removed then, and also when the caller is interrupted.
    """
    sweep(engine)
    import secrets

    token = own_token(request) or secrets.token_urlsafe(24)
    first = request.port or layout.port_of(request.service)
    spec, port = _start(request, gpus, engine, on_message, first, token)
    name = spec.name
    for line in (spec.gpus.note, *engine.cautions(spec)):
        if line:
            on_message(line)
    base = spec.environment.get(layout.BASE_URL, "")
    try:
        if engine.target:
            from kit.remote import tunnels

            tunnel = tunnels.open_tunnel(
                engine.target,
                container=name,
                service=request.service or "",
                remote_port=port,
                first_port=first,
                life=engine.life(name),
                exact=request.port is not None,
            )
            port = tunnel.local_port
            if tunnel.is_shared:
                on_message(
                    f"{engine.target} asks at every login: once its connection is lost, the URL works again after the "
                    f"next kit command there; a key (`ssh-copy-id {engine.target}`) makes it come back by itself"
                )
            open_ports(engine, name, request.ports, on_message)
        wait_for(engine, name, request.service, port, token, base, timeout_s)
    except BaseException:
        close_tunnels(name, engine)
        engine.remove(name, force=True)
        raise
    return Started(name=name, url=service_url(request.service, port, token, base), gpus=spec.gpus)


def _start(
    request: RunRequest,
    gpus: GpuDecision,
    engine: Engine,
    on_message: Callable[[str], None],
    first: int,
    token: str,
) -> tuple[ContainerSpec, int]:
    """Start the container on a free port of its machine: the container, and the port."""
    require_free(engine, request)
    place, name = place_on(engine, request), new_name(request)
    for line in place.notes:
        on_message(line)
    for _ in range(START_TRIES):
        with (
            reserved(gpus, engine, on_message) as (granted, _),
            _port(engine, first, exact=request.port is not None) as port,
        ):
            spec = describe(request, place, granted, name=name, port=port, token=token)
            mount_points.make(engine, spec)
            try:
                engine.run_detached(spec)
            except PortTakenError as e:
                # Another program took it between the look and the start.
                if (request.port is not None and not engine.target) or _is_further(e, request):
                    raise
                first = port + 1
                continue
        return spec, port
    raise PortTakenError(f"no free port found in {START_TRIES} tries")


def _is_further(error: PortTakenError, request: RunRequest) -> bool:
    """Whether a port that is taken is one that the user has chosen besides the service's: no other will do."""
    said = " ".join(error.details)
    return any(re.search(rf":{port}\b", said) for port, _ in request.ports)


@contextlib.contextmanager
def _port(engine: Engine, first: int, *, exact: bool) -> Iterator[int]:
    if engine.target:
        lowest, end = REMOTE_PORTS
        yield lowest + int.from_bytes(os.urandom(4), "big") % (end - lowest)
        return
    with ports.reserved(first, exact=exact) as port:
        yield port


def wait_for(
    engine: Engine,
    name: str,
    service: str | None,
    port: int,
    token: str,
    base: str = "",
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> None:
    """Wait until a service answers with its token, at the path `base`. Raises NotReadyError with its last lines."""
    end = time.monotonic() + timeout_s
    next_look = time.monotonic() + 2
    while time.monotonic() < end:
        if answers(service, port, token, base):
            return
        if time.monotonic() >= next_look:
            container = engine.container(name)
            if container.status not in ("running", "created", "restarting"):
                raise NotReadyError(
                    f"{service} ended with exit code {container.exit_code} instead of answering",
                    details=tuple(engine.logs(name, tail=15)),
                )
            next_look = time.monotonic() + 2
        time.sleep(0.1)
    raise NotReadyError(
        f"{service} did not answer on port {port} within {timeout_s:g} s", details=tuple(engine.logs(name, tail=15))
    )
