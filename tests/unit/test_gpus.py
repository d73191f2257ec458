import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.decide import gpus
from kit.errors import GpuUnavailableError
from kit.facts.host import GpuContainer, GpuProcess, Host, HostGpu, MigInstance
from kit.spec.gpu_request import parse_request


def gpu(index, *, used=0, processes=(), **more):
    return HostGpu(
        index=index,
        uuid=f"GPU-{index:04d}",
        name="NVIDIA A100-SXM4-40GB",
        memory_mib=40960,
        memory_used_mib=used,
        processes=processes,
        **more,
    )


def process(pid=4242, **more):
    return GpuProcess(**{"pid": pid, "name": "python", "user": "ada", "memory_mib": 1200, **more})


def lease(*uuids, name="kit-torch-run-ab12", **more):
    return GpuContainer(**{"name": name, "id": "", "user": "grace", "status": "running", "lease": uuids, **more})


def units(*some, containers=()):
    return gpus.units(Host(gpus=some, containers=tuple(containers)))


def choose(text, found):
    return [unit.uuid for unit in gpus.choose(found, parse_request(text))]


# -- any machine: GPUs with processes, leases and faults, in any order


@st.composite
def machines(draw):
    made, held = [], []
    for index in draw(st.permutations(range(draw(st.integers(1, 8))))):
        processes = draw(st.integers(0, 2))
        made.append(
            gpu(
                index,
                used=draw(st.sampled_from([None, 0, 3, 5000])),
                processes=draw(st.sampled_from([tuple(process(pid=n) for n in range(processes)), None])),
                problem=draw(st.sampled_from(["", "", "", "GPU is lost"])),
            )
        )
        if draw(st.booleans()):
            status = draw(st.sampled_from([*gpus.HOLDING, "exited", "dead", "removing"]))
            held.append(lease(f"GPU-{index:04d}", name=f"kit-{index}", status=status))
    return tuple(made), tuple(held)


def names_of(machine):
    """The UUIDs by what a choice may do with them: may be taken by `free`, may be taken by a number."""
    made, held = machine
    leased = {uuid for container in held if container.status in gpus.HOLDING for uuid in container.lease}
    sound = {g.uuid for g in made if not g.problem and g.uuid not in leased}
    return sound, sound & {g.uuid for g in made if not g.processes}


@given(machines(), st.integers(1, 9))
def test_a_number_is_honoured_with_gpus_nobody_uses_or_refused(machine, count):
    _, idle = names_of(machine)
    found = units(*machine[0], containers=machine[1])
    if len(idle) < count:
        with pytest.raises(GpuUnavailableError) as caught:
            choose(str(count), found)
        assert len(caught.value.details) >= len(found) - len(idle)
        return
    chosen = choose(str(count), found)
    assert len(chosen) == len(set(chosen)) == count
    assert set(chosen) <= idle


@given(machines())
def test_free_is_the_emptiest_without_a_lease_or_refused(machine):
    sound, idle = names_of(machine)
    found = units(*machine[0], containers=machine[1])
    if not sound:
        with pytest.raises(GpuUnavailableError, match=f"none of {len(found)} GPUs is free of leases"):
            choose("free", found)
        return
    (chosen,) = choose("free", found)
    assert chosen in (idle or sound)
    least = min(len(g.processes or ()) for g in machine[0] if g.uuid in sound)
    assert len(next(g.processes or () for g in machine[0] if g.uuid == chosen)) == least


@given(machines(), st.randoms(), st.sampled_from(["free", "1", "2"]))
def test_the_choice_does_not_depend_on_the_order_of_the_gpus(machine, random, text):
    def chosen(some):
        try:
            return choose(text, units(*some, containers=machine[1]))
        except GpuUnavailableError:
            return None

    shuffled = list(machine[0])
    random.shuffle(shuffled)
    assert chosen(shuffled) == chosen(machine[0])


@given(machines())
def test_one_after_another_until_none_is_left_never_gives_the_same_twice(machine):
    made, held = machine
    given_out = []
    while True:
        try:
            (uuid,) = choose("free", units(*made, containers=held))
        except GpuUnavailableError:
            break
        given_out.append(uuid)
        held = (*held, lease(uuid, name=f"kit-new-{len(given_out)}", status="created"))
    assert len(given_out) == len(set(given_out))
    assert set(given_out) == names_of(machine)[0]


# -- which is the emptiest


@pytest.mark.parametrize(
    ("some", "index"),
    [
        ([gpu(0, processes=(process(),)), gpu(1, used=9000)], 1),
        ([gpu(0, used=700), gpu(1, used=3)], 1),
        ([gpu(2), gpu(1), gpu(3)], 1),
        ([gpu(0, used=None), gpu(1, used=100)], 1),
        ([gpu(0, processes=(process(1), process(2))), gpu(1, processes=(process(3),), used=30000)], 1),
        ([gpu(0, problem="GPU is lost"), gpu(1, processes=(process(),))], 1),
    ],
)
def test_fewest_processes_then_least_memory_then_lowest_index(some, index):
    assert choose("free", units(*some)) == [f"GPU-{index:04d}"]


def test_a_display_server_does_not_make_a_gpu_used():
    """Ubuntu's starts on every GPU of a machine; with it counted, none would ever be free."""
    xorg = process(name="Xorg", user="root", memory_mib=4, is_graphics=True)
    (unit,) = units(gpu(0, used=4, processes=(xorg,)))
    assert unit.state == "free"
    assert choose("1", [unit]) == ["GPU-0000"]


def test_a_gpu_whose_processes_are_not_known_is_taken_with_a_word_about_it():
    (unit,) = units(gpu(0, processes=None))
    assert choose("1", [unit]) == ["GPU-0000"]
    assert gpus.choice_note([unit]).splitlines()[1] == ("GPU 0: the driver does not say whether other processes use it")


# -- what is said


def test_a_choice_that_is_in_use_says_whose_in_one_line():
    (unit,) = units(gpu(3, processes=(process(container="kit-a"), process(7, user="", memory_mib=None))))
    assert gpus.choice_note([unit]).splitlines() == [
        "GPU 3 (NVIDIA A100-SXM4-40GB): leased to this container",
        "GPU 3 is the emptiest, but in use: python (pid 4242, user ada, 1200 MiB, in kit-a); python (pid 7)",
    ]


def test_a_refusal_names_who_uses_each():
    found = units(
        gpu(0),
        gpu(1, processes=(process(),)),
        gpu(2),
        gpu(3, problem="GPU is lost"),
        containers=[lease("GPU-0002")],
    )
    with pytest.raises(GpuUnavailableError) as caught:
        choose("2", found)
    assert caught.value.message == "--gpus 2: 1 of 4 GPUs is free"
    assert caught.value.details == (
        "GPU 1: python (pid 4242, user ada, 1200 MiB)",
        "GPU 2: leased by kit-torch-run-ab12 (user grace)",
        "GPU 3: the driver reports: GPU is lost",
    )
    assert "--gpus device=0" in caught.value.hint


def test_more_than_the_machine_has_is_explained():
    with pytest.raises(GpuUnavailableError, match="--gpus 5: there are only 2 to choose from") as caught:
        choose("5", units(gpu(0), gpu(1)))
    assert "--gpus device=5 names one" in caught.value.hint


@pytest.mark.parametrize("text", ["free", "1"])
def test_a_machine_without_a_gpu_is_explained(text):
    with pytest.raises(GpuUnavailableError, match="no NVIDIA GPU to choose from"):
        choose(text, ())


def test_a_warning_names_each_holder_once():
    one = lease("GPU-0000")
    assert gpus.lease_warning([one, one, lease("GPU-0001", name="kit-b", user="")]) == (
        "warning: shares GPUs that are leased to kit-torch-run-ab12 (user grace), kit-b"
    )
    assert gpus.lease_warning([]) == ""


# -- leases and other uses


@pytest.mark.parametrize("status", gpus.HOLDING)
def test_a_container_that_is_about_to_run_or_runs_holds_its_lease(status):
    assert units(gpu(0), containers=[lease("GPU-0000", status=status)])[0].state == "leased"


@pytest.mark.parametrize("status", ["exited", "dead", "removing"])
def test_a_container_that_ended_gives_its_gpu_back(status):
    (unit,) = units(gpu(0), containers=[lease("GPU-0000", status=status)])
    assert (unit.state, unit.containers) == ("free", ())


@pytest.mark.parametrize(
    ("device", "indexes"),
    [
        ("all", "012"),
        ("nvidia.com/gpu=all", "012"),
        ("nvidia.com/gpu=1", "1"),
        ("2", "2"),
        ("GPU-0001", "1"),
        ("nvidia.com/gpu=GPU-0000", "0"),
        ("12", ""),
    ],
)
def test_a_container_without_a_lease_is_shown_at_its_gpus_and_keeps_nobody_off(device, indexes):
    found = units(gpu(0), gpu(1), gpu(2), containers=[lease(devices=(device,))])
    assert "".join(unit.index for unit in found if unit.containers) == indexes
    assert all(unit.state == "free" for unit in found)


def test_other_containers_than_the_hosts_own_may_be_given():
    host = Host(gpus=(gpu(0),), containers=(lease("GPU-0000"),))
    assert gpus.units(host, [])[0].state == "free"


# -- MIG


MIG = gpu(
    1,
    is_mig_enabled=True,
    processes=(process(mig_uuid="MIG-b"),),
    mig_instances=(
        MigInstance(uuid="MIG-a", profile="3g.20gb", index=0, memory_mib=19968, memory_used_mib=10),
        MigInstance(uuid="MIG-b", profile="3g.20gb", index=1, memory_mib=19968, memory_used_mib=900),
    ),
)


def test_with_mig_the_instances_are_what_is_given():
    found = units(gpu(0), MIG)
    assert [(u.index, u.uuid, u.state) for u in found] == [
        ("0", "GPU-0000", "free"),
        ("1:0", "MIG-a", "free"),
        ("1:1", "MIG-b", "in use"),
    ]
    assert found[1].label == "GPU 1:0 (3g.20gb)"
    assert choose("2", found) == ["GPU-0000", "MIG-a"]


def test_mig_without_instances_gives_nothing():
    assert units(dataclasses.replace(MIG, mig_instances=())) == ()


def test_a_process_on_an_instance_that_is_not_known_counts_for_all():
    assert {u.state for u in units(dataclasses.replace(MIG, processes=(process(),)))} == {"in use"}


def test_a_lease_of_the_whole_gpu_holds_its_instances():
    assert {u.state for u in units(MIG, containers=[lease("GPU-0001")])} == {"leased"}


def test_instances_have_no_index_where_the_driver_gives_none():
    bare = dataclasses.replace(MIG, mig_instances=(MigInstance(uuid="MIG-a"),))
    (unit,) = units(bare)
    assert (unit.index, unit.label) == ("", "GPU MIG-a")


def test_names_stand_for_units_in_their_order():
    found = units(gpu(0), MIG, gpu(2))

    def named(*names):
        return [u.uuid for u in gpus.named(found, names)]

    assert named("2", "0") == ["GPU-0002", "GPU-0000"]
    assert named("1") == ["MIG-a", "MIG-b"]
    assert named("1:1", "MIG-b") == ["MIG-b"]
    assert named("GPU-0002") == ["GPU-0002"]
    assert named("all") == ["GPU-0000", "MIG-a", "MIG-b", "GPU-0002"]
    assert named("7") == []


# -- CUDA_VISIBLE_DEVICES


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0", ("0",)),
        ("1, 3", ("1", "3")),
        ("2,0,2", ("2", "0")),
        ("0,-1,2", ("0",)),
        ("GPU-5f0e,MIG-77aa", ("GPU-5f0e", "MIG-77aa")),
        ("none", ()),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(value, names):
    assert gpus.visible({} if value is None else {"CUDA_VISIBLE_DEVICES": value}) == names


def test_users_are_named_where_they_are_known():
    some = [lease(user="1000:1000"), lease(user="5:5"), lease(user=""), lease(user="x")]
    found = gpus.with_user_names(some, {1000: "ada"}.get)
    assert [container.user for container in found] == ["ada", "5:5", "", "x"]
