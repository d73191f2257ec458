import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from kit.catalog import load_catalog
from kit.decide import gpus
from kit.errors import GpuUnavailableError, UnsupportedHostError
from kit.facts.host import GpuProcess, Host, HostGpu
from kit.network import NetworkSettings
from kit.run import lease
from kit.run.command import run_command
from kit.run.containers import listed
from kit.run.lease import host_for, reserved
from kit.run.service import start_service
from kit.run.start import RunAsk, plan
from kit.spec.gpu_grant import HIDDEN_GPUS, GpuGrant
from kit.spec.gpu_request import parse_request
from kit.spec.request import RunRequest
from tests.fake_docker import container, info

LISTED = tuple(f"nvidia.com/gpu={name}" for name in ("0", "1", "GPU-aa", "GPU-bb", "all"))
TORCH = load_catalog().find("torch-cu126")
PROCESS = GpuProcess(pid=7, name="python", user="ada")
HOST = Host(
    driver="580.65.06",
    gpus=(
        HostGpu(index=0, uuid="GPU-aa", name="NVIDIA L4", memory_used_mib=0, processes=()),
        HostGpu(index=1, uuid="GPU-bb", name="NVIDIA L4", memory_used_mib=0, processes=()),
    ),
)
BUSY = dataclasses.replace(HOST, gpus=tuple(dataclasses.replace(g, processes=(PROCESS,)) for g in HOST.gpus))


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def lock(monkeypatch, tmp_path):
    """The machine's lock in a folder of the test's own."""
    folder = tmp_path / "lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(lease.lock_file, "__defaults__", ((folder,),))
    return folder / lease.LOCK_NAME


@pytest.fixture
def machine(patch_read_gpus, fake_docker):
    """Two idle GPUs, which the engine lists; the test says who leases them."""
    read = []

    def read_gpus(target="", *, with_use=False, engine=None):
        read.append(with_use)
        return HOST

    patch_read_gpus(read_gpus)
    fake_docker.reply("info", stdout=info(DiscoveredDevices=[{"Source": "cdi", "ID": d} for d in LISTED]))
    return read


def held_by(fake_docker, *leases):
    """What the engine says: containers by (name, UUIDs, status)."""
    fake_docker.reply("ps", stdout="".join(f"{name}\n" for name, *_ in leases))
    found = [
        container(
            name,
            labels={"kit.lease": uuids, "kit.user": "4123456:5", "kit.owner-name": "bob"},
            state={"Status": status},
        )
        for name, uuids, status in leases
    ]
    fake_docker.reply("container", "inspect", stdout=json.dumps(found))


def asked(text):
    return None if text is None else parse_request(text)


def decide(text, engine, *, host=None, image=TORCH):
    return lease.decide(asked(text), engine, image, host).grant


# -- which GPUs


def test_free_leases_the_emptiest_by_uuid(engine, machine):
    found = decide("free", engine)
    assert found.devices == ("nvidia.com/gpu=GPU-aa",)
    assert found.lease == ("GPU-aa",)
    assert found.note == "GPU 0 (NVIDIA L4): leased to this container"
    assert machine == [True], "who uses the GPUs matters"


def test_what_another_container_leases_is_not_chosen(engine, machine, fake_docker):
    held_by(fake_docker, ("kit-a", "GPU-aa", "created"))
    assert decide("free", engine).lease == ("GPU-bb",)
    assert decide("1", engine).lease == ("GPU-bb",)
    with pytest.raises(GpuUnavailableError) as caught:
        decide("2", engine)
    assert caught.value.details == ("GPU 0: leased by kit-a (user bob)",)


def test_a_container_that_ended_leases_nothing(engine, machine, fake_docker):
    held_by(fake_docker, ("kit-a", "GPU-aa GPU-bb", "exited"))
    assert decide("2", engine).lease == ("GPU-aa", "GPU-bb")


def test_gpus_as_they_were_read_before_are_not_read_again(engine, machine):
    assert "in use: python (pid 7, user ada)" in decide("free", engine, host=BUSY).note
    with pytest.raises(GpuUnavailableError, match="none of 2 GPUs is free"):
        decide("1", engine, host=BUSY)
    assert machine == []


def test_an_engine_on_another_machine_is_refused(engine, machine, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "ssh://lab")
    with pytest.raises(UnsupportedHostError, match="engine is on another machine"):
        decide("free", engine)
    assert decide("device=0", engine).devices == ("nvidia.com/gpu=0",)


def test_a_context_says_where_its_engine_is(engine, fake_docker, monkeypatch):
    monkeypatch.delenv("DOCKER_HOST")
    fake_docker.reply("context", "inspect", stdout="unix:///run/user/1000/docker.sock\n")
    assert engine.is_local


def test_a_named_gpu_that_is_leased_is_given_with_a_warning(engine, machine, fake_docker):
    held_by(fake_docker, ("kit-a", "GPU-aa", "running"))
    assert decide("device=0", engine).note == "warning: shares GPUs that are leased to kit-a (user bob)"
    assert decide("device=1", engine).note == ""
    assert decide("GPU-aa", engine).note.startswith("warning: ")
    assert decide("device=0", engine).lease == ()


@pytest.mark.parametrize("text", ["all", None])
def test_all_gpus_with_a_lease_among_them_come_with_a_warning_and_without_reading_them(
    engine, machine, fake_docker, text
):
    held_by(fake_docker, ("kit-a", "GPU-aa", "running"))
    assert "leased to kit-a" in decide(text, engine).note
    assert machine == []


def test_requests_without_a_lease_do_not_read_the_gpus(engine, machine):
    assert decide("device=0", engine).note == ""
    assert decide(None, engine).devices == ("nvidia.com/gpu=all",)
    assert decide("none", engine).devices == ()
    assert machine == []


def test_an_image_for_the_cpu_has_nothing_to_lease(engine, machine, catalog):
    with pytest.raises(GpuUnavailableError, match="tf-cpu is built for the CPU"):
        decide("free", engine, image=catalog.find("tf-cpu"))


def test_what_needs_no_gpu_gets_none_and_sees_none(catalog):
    assert lease.no_gpus(TORCH) == lease.GpuDecision(grant=HIDDEN_GPUS)
    assert lease.no_gpus(catalog.find("tf-cpu")) == lease.GpuDecision(grant=GpuGrant())


# -- what a scheduler left


def test_without_a_request_cuda_visible_devices_says_which(engine, machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = decide(None, engine)
    assert found.devices == ("nvidia.com/gpu=GPU-bb",)
    assert found.note == "GPU 1 only, as CUDA_VISIBLE_DEVICES=1 says; --gpus all takes every GPU"
    assert found.lease == ()
    assert decide("all", engine).devices == ("nvidia.com/gpu=all",), "what is said outright counts"
    assert decide("device=0", engine).devices == ("nvidia.com/gpu=0",)


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_a_scheduler_that_gave_none_means_the_cpu(engine, machine, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    found = decide(None, engine)
    assert (found.devices, found.environment) == ((), (("NVIDIA_VISIBLE_DEVICES", "void"),))
    assert found.note == f"CUDA_VISIBLE_DEVICES={value} leaves no GPU: running on the CPU"
    with pytest.raises(GpuUnavailableError, match=f"CUDA_VISIBLE_DEVICES={value} leaves no GPU to choose from"):
        decide("free", engine)


def test_a_choice_is_made_among_the_visible_ones(engine, machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert decide("free", engine).lease == ("GPU-bb",)
    with pytest.raises(GpuUnavailableError, match="--gpus 2: there is only 1 to choose from"):
        decide("2", engine)


def test_in_a_job_a_gpu_goes_by_its_uuid_alone(engine, machine, monkeypatch, fake_docker):
    """A job that sees its own GPUs only counts them from 0, which is another GPU to the engine."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    devices = [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]
    fake_docker.reply("info", stdout=info(DiscoveredDevices=devices))
    with pytest.raises(GpuUnavailableError, match=r"knows no nvidia\.com/gpu=GPU-aa"):
        decide(None, engine)


def test_visible_devices_that_are_not_there_are_an_error(engine, machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,7")
    with pytest.raises(GpuUnavailableError, match="CUDA_VISIBLE_DEVICES=1,7 names 7, which") as caught:
        decide(None, engine)
    assert caught.value.details == ("GPU 0: GPU-aa", "GPU 1: GPU-bb")


@pytest.mark.parametrize(("job", "device"), [("1", "1"), ("", "0")])
def test_where_the_driver_cannot_be_asked_slurms_own_numbers_count(engine, machine, monkeypatch, job, device):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_GPUS", job)
    found = decide(None, engine, host=Host())
    assert found.devices == (f"nvidia.com/gpu={device}",)


def test_visible_gpus_that_are_leased_come_with_both_lines(engine, machine, fake_docker, monkeypatch):
    held_by(fake_docker, ("kit-a", "GPU-bb", "running"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    first, second = decide(None, engine).note.splitlines()
    assert first.startswith("GPU 1 only")
    assert "leased to kit-a" in second


# -- the lock


def hold(path):
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def test_the_lock_file_is_made_for_every_user_whatever_the_umask(lock):
    before = os.umask(0o077)
    try:
        with lease.locked(lock):
            assert lock.stat().st_mode & 0o777 == 0o444
    finally:
        os.umask(before)
    assert [file.name for file in lock.parent.iterdir()] == [lease.LOCK_NAME]


def test_one_holds_the_lock_and_the_next_waits_until_it_is_released(lock):
    order = []

    def second():
        with lease.locked(lock):
            order.append("second")

    with lease.locked(lock) as release:
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
        release()
        other.join(timeout=5)
        order.append("block ended")
        release()
    assert order == ["first", "second", "block ended"]


def test_the_lock_is_free_again_after_an_error(lock):
    with contextlib.suppress(KeyboardInterrupt), lease.locked(lock):
        raise KeyboardInterrupt
    with lease.locked(lock, wait_s=0.1):
        pass


def test_waiting_for_the_lock_is_said_and_has_an_end(lock, monkeypatch):
    monkeypatch.setattr(lease, "LOCK_NOTICE_S", 0.05)
    said = []
    with lease.locked(lock):
        pass
    handle = hold(lock)
    started = time.monotonic()
    try:
        with pytest.raises(GpuUnavailableError, match=r"\(PID \d+, .* has held .* for 0\.3 s") as caught:  # noqa: SIM117
            with lease.locked(lock, wait_s=0.3, on_wait=said.append):
                raise AssertionError("another process holds it")
    finally:
        os.close(handle)
    assert time.monotonic() - started < 5
    assert "--gpus device=0" in caught.value.hint
    assert said == ["waiting for another `kit run` of this machine that is choosing its GPUs"]


def refused(lock):
    with pytest.raises(GpuUnavailableError) as caught, lease.locked(lock, wait_s=0.2):
        raise AssertionError("the lock was taken")
    return caught.value


def test_a_link_in_the_place_of_the_lock_is_refused(lock, tmp_path):
    (tmp_path / "victim").write_text("x")
    lock.symlink_to(tmp_path / "victim")
    assert f"cannot open the lock file {lock}" in refused(lock).message
    assert f"sudo rm {lock}" in refused(lock).hint


def test_a_pipe_in_the_place_of_the_lock_is_refused_and_not_waited_for(lock):
    os.mkfifo(lock)
    assert "no regular file" in refused(lock).message


def test_a_folder_in_the_place_of_the_lock_is_refused(lock):
    lock.mkdir()
    assert "no regular file" in refused(lock).message


@pytest.fixture
def open_folder():
    """A folder as /run/lock is; every user can come to it, unlike to pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize(("mode", "code"), [(0o444, 0), (0o400, 1)])
def test_another_user_takes_the_same_lock_or_is_told_why_not(open_folder, mode, code):
    lock = open_folder / lease.LOCK_NAME
    with lease.locked(lock):
        pass
    lock.chmod(mode)
    child = os.fork()
    if child == 0:
        ended = 2
        try:
            os.setgid(65534)
            os.setuid(65534)
            with lease.locked(lock, wait_s=1):
                ended = 0
        except GpuUnavailableError as e:
            ended = 1 if "Permission denied" in e.message else 3
        finally:
            os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def test_a_lock_file_that_was_tidied_away_while_it_was_waited_for_is_made_anew(lock):
    with lease.locked(lock):
        pass
    handle = hold(lock)
    got = threading.Event()

    def wait():
        with lease.locked(lock):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    lock.unlink()
    os.close(handle)
    waiting.join(timeout=5)
    assert got.is_set()
    assert lock.exists()


def test_the_lock_is_where_all_users_may_write(tmp_path):
    for name, mode in (("own", 0o755), ("shared", 0o1777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    folders = (tmp_path / "missing", tmp_path / "own", tmp_path / "shared")
    assert lease.lock_file(folders) == tmp_path / "shared" / lease.LOCK_NAME
    with pytest.raises(UnsupportedHostError, match="every user may write"):
        lease.lock_file(folders[:2])


# -- starting with a lease


@pytest.fixture
def request_(tmp_path):
    return RunRequest(
        image=TORCH,
        command=("true",),
        folder=tmp_path,
        user="1000:1000",
        network=NetworkSettings(proxies={}),
    )


def wanted(text, engine, host=None):
    return lease.decide(asked(text), engine, TORCH, host)


def is_held(lock):
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_command_lets_the_lock_go_when_the_engine_has_its_container(
    request_, engine, machine, fake_docker, lock, monkeypatch
):
    """Not before, or two would choose the same GPU; and not at its end, or nobody could start for days."""
    fake_docker.reply("run", sleep=3, code=5)
    monkeypatch.setattr("kit.run.gpu_check.check_before", lambda *_: None)
    codes = []
    gpus = wanted("free", engine)
    command = threading.Thread(target=lambda: codes.append(run_command(request_, gpus, engine, print)))
    # `attach` sets a signal handler, which only the main thread may.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kit.process.signal.signal", lambda *_: None)
        command.start()
        end = time.monotonic() + 2.5
        while not fake_docker.called("run") and time.monotonic() < end:
            time.sleep(0.02)
        assert is_held(lock), "the engine has no such container yet"
        name = next(a for a in fake_docker.called("run")[0].args if a.startswith("--name=")).removeprefix("--name=")
        fake_docker.reply("ps", "--all", "--quiet", f"--filter=name=^/?{name}$", stdout="0123\n")
        while is_held(lock) and time.monotonic() < end:
            time.sleep(0.02)
        assert not is_held(lock)
        assert codes == [], "the command still runs"
        command.join()
    assert codes == [5]
    assert "--label=kit.lease=GPU-aa" in fake_docker.called("run")[0].args
    assert "--rm" in fake_docker.called("run")[0].args


def test_a_command_that_cannot_start_lets_the_lock_go(request_, engine, machine, fake_docker, lock):
    fake_docker.reply("run", code=125)
    assert run_command(request_, wanted("free", engine), engine, print) == 125
    assert not is_held(lock)


def test_a_service_holds_the_lock_until_it_was_started(request_, engine, machine, fake_docker, lock, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "run_detached", lambda spec: seen.append((is_held(lock), spec.labels["kit.lease"])))
    monkeypatch.setattr("kit.run.service.answers", lambda *_: not is_held(lock))
    notebook = dataclasses.replace(request_, service="jupyter")
    assert start_service(notebook, wanted("2", engine), engine, print).url
    assert seen == [(True, "GPU-aa GPU-bb")]


def test_what_a_killed_kit_left_unstarted_leases_nothing(engine, machine, fake_docker):
    gpus = wanted("free", engine)
    dead = container(
        "kit-dead",
        labels={"kit.lease": "GPU-aa", "kit.client": f"{socket.gethostname()}:4194999"},
        state={"Status": "created"},
    )
    fake_docker.reply("ps", stdout="")
    fake_docker.reply("ps", stdout="a\n", times=1)
    fake_docker.reply("container", "inspect", stdout=json.dumps([dead]))
    with reserved(gpus, engine, print) as (granted, _):
        assert granted.lease == ("GPU-aa",)
    assert [call.args[-1] for call in fake_docker.called("rm")] == ["kit-dead"]


def test_no_lease_takes_no_lock(engine, machine, lock):
    with reserved(wanted("device=1", engine), engine, print) as (granted, release):
        release()
        assert granted.devices == ("nvidia.com/gpu=1",)
    assert not lock.exists()


def test_a_decision_with_the_host_reads_nothing_more(engine, machine):
    with reserved(wanted("free", engine, BUSY), engine, print) as (granted, _):
        assert "in use" in granted.note
    assert machine == []


@pytest.mark.parametrize(
    ("text", "visible", "indexes", "with_use"),
    [
        (None, None, [0, 1], False),
        ("all", None, [0, 1], False),
        ("none", None, [], False),
        ("device=1", None, [1], False),
        ("0,1", None, [0, 1], False),
        ("free", None, [0, 1], True),
        ("2", None, [0, 1], True),
        (None, "1", [1], False),
        (None, "", [], False),
        ("free", "GPU-aa", [0], True),
        ("all", "1", [0, 1], False),
    ],
)
def test_the_gpus_an_image_must_fit_are_those_it_may_be_given(machine, monkeypatch, text, visible, indexes, with_use):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [g.index for g in host_for(asked(text)).gpus] == indexes
    assert machine == [with_use]


def test_ps_says_what_is_leased(engine, fake_docker):
    held_by(fake_docker, ("kit-a", "GPU-aa GPU-bb", "running"))
    (found,) = listed(engine, everything=False)
    assert found.lease == ("GPU-aa", "GPU-bb")
    assert found.status in gpus.HOLDING


class Quiet:
    """A screen that shows nothing; nothing is built or sent."""

    def say(self, text: str) -> None:
        pass


@pytest.mark.parametrize(("asked", "with_use"), [(None, False), ("device=1", False), ("free", True)])
def test_kit_run_reads_the_machine_once(catalog, fake_docker, machine, monkeypatch, tmp_path, asked, with_use):
    monkeypatch.setattr("kit.run.prepare.ensure_image", lambda *_: ("", False))
    monkeypatch.setattr("kit.run.gpu_check.check_before", lambda *_: None)
    wanted = RunAsk(
        name=next(image.name for image in catalog.images() if image.is_gpu),
        words=("true",),
        gpus=asked and parse_request(asked),
        folder=tmp_path,
        force=True,
    )
    planned = plan(wanted, Quiet())
    with reserved(planned.gpus, planned.engine, lambda _: None) as (granted, release):
        release()
    assert granted.devices
    assert machine == [with_use]
