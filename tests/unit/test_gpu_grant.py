"""GPUs: what `--gpus` asks for, how an engine passes them in, and what stands on the container of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInputError, GpuUnavailableError
from kit.facts.engine import EngineFacts
from kit.host import host_has_gpu
from kit.spec.gpu_grant import HIDDEN, HIDDEN_GPUS, UNCHECKED, GpuGrant, grant, grant_in, read_label, refuse_cpu_image
from kit.spec.gpu_request import NO_GPUS, parse_request
from kit.targets.docker import gpu_arguments

ALL = ("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=GPU-5f0e", "nvidia.com/gpu=all")


def given_gpus(text, facts, **more):
    return grant(None if text is None else parse_request(text), facts, **more)


def engine(*, cdi=(), runtimes=("runc",)):
    return EngineFacts(program="docker", version="28", problem="", cdi_devices=tuple(cdi), runtimes=tuple(runtimes))


def test_what_goes_with_the_gpus_is_written_down():
    assert HIDDEN == (("NVIDIA_VISIBLE_DEVICES", "void"),)
    assert UNCHECKED == (("NVIDIA_DISABLE_REQUIRE", "1"),)


# -- what is asked for


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,3", ("0", "3")),
        ("0, 3", ("0", "3")),
        ("3,0,3", ("3", "0")),
        ("device=0", ("0",)),
        ("device=1,2", ("1", "2")),
        ("0:1", ("0:1",)),
        ("GPU-5f0e1a2b-0000", ("GPU-5f0e1a2b-0000",)),
        ("device=GPU-5f0e", ("GPU-5f0e",)),
        ("MIG-GPU-5f0e/1/0", ("MIG-GPU-5f0e/1/0",)),
    ],
)
def test_requests_that_name_gpus(text, names):
    found = parse_request(text)
    assert (found.kind, found.names, found.text) == ("named", names, text)
    assert not found.is_lease


@pytest.mark.parametrize("text", ["all", "none"])
def test_requests_that_leave_nothing_to_choose(text):
    assert parse_request(text).kind == text
    assert not parse_request(text).is_lease


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("2", 2), ("16", 16), ("9999", 9999)])
def test_a_number_alone_is_how_many(text, count):
    found = parse_request(text)
    assert (found.kind, found.count, found.names, found.is_lease) == ("count", count, (), True)


def test_free_is_a_lease_too():
    assert parse_request("free").kind == "free"
    assert parse_request("free").is_lease


@pytest.mark.parametrize("text", ["0", "00"])
def test_zero_alone_is_neither_the_first_gpu_nor_none(text):
    with pytest.raises(BadInputError, match=f"--gpus {text}: a number alone says how many") as caught:
        parse_request(text)
    assert "--gpus device=0 is the first GPU, --gpus none is no GPU" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", ",", "0,", "-1", "+1", "one", "0 1", "all,0", "0,all", "none,0", "free,0", "device=", "device=all", "GPU"],
)
def test_requests_that_name_none_are_bad_input(text):
    with pytest.raises(BadInputError, match="--gpus"):
        parse_request(text)


@pytest.mark.parametrize("text", ["1.5", "²", "٣", '0"', "0;rm"])
def test_only_plain_digits_are_numbers(text):
    with pytest.raises(BadInputError, match="--gpus"):
        parse_request(text)


@given(st.lists(st.integers(0, 99), min_size=2))
def test_any_list_of_indexes_is_kept_in_order_without_repetition(numbers):
    found = parse_request(",".join(map(str, numbers)))
    assert found.names == tuple(dict.fromkeys(map(str, numbers)))


@given(st.text(max_size=12))
def test_what_is_accepted_cannot_break_out_of_the_engines_option(text):
    try:
        names = parse_request(text).names
    except BadInputError:
        return
    assert all(set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/:") for name in names)


# -- what is given


@pytest.mark.parametrize(
    ("request_", "devices"),
    [
        (None, ("nvidia.com/gpu=all",)),
        ("all", ("nvidia.com/gpu=all",)),
        ("device=1", ("nvidia.com/gpu=1",)),
        ("0,1", ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        ("GPU-5f0e", ("nvidia.com/gpu=GPU-5f0e",)),
    ],
)
@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("runtimes", [("runc",), ("nvidia", "runc")])
def test_a_cdi_device_goes_first(request_, devices, has_gpu, runtimes):
    found = given_gpus(request_, engine(cdi=ALL, runtimes=runtimes), has_gpu=has_gpu)
    # Where the nvidia runtime is the default, it would add every GPU to the one that was asked for.
    assert found == GpuGrant(form="cdi", devices=devices, environment=HIDDEN)
    assert gpu_arguments(found) == [f"--device={device}" for device in devices]


def test_devices_of_other_vendors_are_not_taken():
    with pytest.raises(GpuUnavailableError):
        given_gpus("all", engine(cdi=["vendor.com/net=all"]), has_gpu=True)


def test_a_specification_without_all_gives_everything_it_lists():
    found = given_gpus(
        None,
        engine(cdi=["nvidia.com/gpu=0", "nvidia.com/gpu=1", "x.y/z=0"]),
        has_gpu=False,
    )
    assert found.devices == ("nvidia.com/gpu=0", "nvidia.com/gpu=1")
    assert found.note == ""


def test_an_index_that_the_engine_does_not_know_is_an_error_that_lists_those_it_knows():
    with pytest.raises(GpuUnavailableError, match=r"knows no nvidia\.com/gpu=7, nvidia\.com/gpu=8$") as caught:
        given_gpus("0,7,8", engine(cdi=ALL), has_gpu=True)
    assert caught.value.details == ("it knows: " + ", ".join(ALL),)
    assert "nvidia-ctk" in caught.value.hint


CHOSEN = (("GPU-5f0e", "0"), ("GPU-77aa", "1"))


def test_a_chosen_gpu_goes_by_its_uuid_where_the_engine_lists_it_else_by_its_index():
    found = given_gpus("2", engine(cdi=ALL), has_gpu=True, devices=CHOSEN)
    assert found.devices == ("nvidia.com/gpu=GPU-5f0e", "nvidia.com/gpu=1")


def test_a_chosen_gpu_that_the_engine_lists_by_no_name_is_an_error():
    with pytest.raises(GpuUnavailableError, match=r"knows no nvidia\.com/gpu=GPU-9999$"):
        given_gpus("free", engine(cdi=ALL), has_gpu=True, devices=(("GPU-9999", "7"),))
    # What the machine has is everything the engine lists only when nothing was chosen.
    with pytest.raises(GpuUnavailableError):
        given_gpus(None, engine(cdi=ALL), has_gpu=True, devices=(("GPU-9999",),))


def test_the_nvidia_runtime_takes_chosen_gpus_by_uuid():
    found = given_gpus("2", engine(runtimes=("nvidia",)), has_gpu=True, devices=CHOSEN)
    assert found.devices == ("GPU-5f0e", "GPU-77aa")
    assert gpu_arguments(found) == ['--gpus="device=GPU-5f0e,GPU-77aa"']


@pytest.mark.parametrize(
    ("request_", "devices", "argument"),
    [
        (None, ("all",), "--gpus=all"),
        ("all", ("all",), "--gpus=all"),
        ("device=0", ("0",), '--gpus="device=0"'),
        ("0,3", ("0", "3"), '--gpus="device=0,3"'),
    ],
)
def test_the_nvidia_runtime_is_taken_when_there_is_no_cdi_device(request_, devices, argument):
    found = given_gpus(request_, engine(runtimes=("nvidia", "runc")), has_gpu=True)
    # Without it the runtime refuses drivers that minor-version compatibility lets through.
    assert found == GpuGrant(form="runtime", devices=devices, environment=UNCHECKED)
    assert gpu_arguments(found) == [argument]


@pytest.mark.parametrize("request_", [None, "all", "device=0", "0,1"])
def test_a_gpu_that_the_engine_cannot_pass_through_is_never_silently_left_out(request_):
    with pytest.raises(
        GpuUnavailableError, match="this host has an NVIDIA GPU, but the container engine cannot"
    ) as caught:
        given_gpus(request_, engine(), has_gpu=True)
    assert "NVIDIA Container Toolkit" in caught.value.hint
    assert "--gpus none" in caught.value.hint


@pytest.mark.parametrize("runtimes", [("runc",), ("nvidia", "runc")])
def test_a_host_without_a_gpu_runs_on_the_cpu_and_says_so(runtimes):
    """Also where the Container Toolkit is installed all the same, as on a cluster's login node."""
    found = given_gpus(None, engine(runtimes=runtimes), has_gpu=False)
    assert found == GpuGrant(environment=HIDDEN, note="no NVIDIA GPU on this host: running on the CPU")


def test_a_gpu_asked_for_on_a_host_without_one_is_an_error():
    with pytest.raises(GpuUnavailableError, match="--gpus all was asked for, but"):
        given_gpus("all", engine(), has_gpu=False)


@pytest.mark.parametrize("info", [engine(), engine(cdi=ALL), engine(runtimes=("nvidia",))])
@pytest.mark.parametrize("has_gpu", [True, False])
def test_none_hides_the_gpus_from_a_default_nvidia_runtime_too(info, has_gpu):
    assert given_gpus("none", info, has_gpu=has_gpu) == HIDDEN_GPUS == GpuGrant(environment=HIDDEN)
    assert grant(NO_GPUS, info, has_gpu=has_gpu) == HIDDEN_GPUS
    assert gpu_arguments(HIDDEN_GPUS) == []


@pytest.mark.parametrize("request_", [None, "none"])
def test_an_image_for_the_cpu_is_not_refused_where_no_gpu_is_asked_for(request_):
    refuse_cpu_image(None if request_ is None else parse_request(request_), "tf-cpu")


@pytest.mark.parametrize("text", ["free", "all", "2", "device=0"])
def test_gpus_for_an_image_for_the_cpu_are_an_error_that_names_it(text):
    with pytest.raises(GpuUnavailableError, match=f"tf-cpu is built for the CPU, so --gpus {text} cannot work"):
        refuse_cpu_image(parse_request(text), "tf-cpu")


def test_a_malformed_request_is_bad_input():
    with pytest.raises(BadInputError):
        parse_request("two")


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("cdi", None, GpuGrant(form="cdi", devices=("nvidia.com/gpu=all",), environment=HIDDEN)),
        ("cdi", "all", GpuGrant(form="cdi", devices=("nvidia.com/gpu=all",), environment=HIDDEN)),
        (
            "cdi",
            "device=0,GPU-5f0e",
            GpuGrant(form="cdi", devices=("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-5f0e"), environment=HIDDEN),
        ),
        ("runtime", None, GpuGrant(form="runtime", devices=("all",), environment=UNCHECKED)),
        ("runtime", "0,1", GpuGrant(form="runtime", devices=("0", "1"), environment=UNCHECKED)),
    ],
)
def test_gpus_for_an_engine_that_cannot_be_asked_go_by_their_names(form, text, expected):
    assert grant_in(form, parse_request(text) if text else None) == expected


@given(st.sampled_from(["cdi", "runtime"]), st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True))
def test_an_engine_that_was_asked_gives_the_same_in_its_form_as_one_that_was_not(form, numbers):
    request = parse_request("device=" + ",".join(map(str, numbers)))
    listed = [f"nvidia.com/gpu={number}" for number in numbers] if form == "cdi" else ()
    facts = engine(cdi=listed, runtimes=("nvidia",))
    assert grant(request, facts, has_gpu=True) == grant_in(form, request)


# -- what stands on the container of it

names = st.one_of(
    st.integers(0, 999).map(str),
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.uuids().map(lambda uuid: f"GPU-{uuid}"),
    st.uuids().map(lambda uuid: f"MIG-{uuid}"),
)
grants = st.one_of(
    st.just(GpuGrant()),
    st.sampled_from(["cdi", "runtime"]).map(grant_in),
    st.lists(names, min_size=1, max_size=9, unique=True).flatmap(
        lambda found: st.sampled_from(["cdi", "runtime"]).map(
            lambda form: grant_in(form, parse_request("device=" + ",".join(found)))
        )
    ),
)


@given(grants)
def test_a_label_is_read_as_the_devices_that_were_given(found):
    assert read_label(" ".join(found.devices)) == found.devices


@given(grants)
def test_so_is_the_label_of_a_container_that_the_version_before_started(found):
    """It had the arguments of the engine."""
    assert read_label(" ".join(gpu_arguments(found))) == found.devices


@pytest.mark.parametrize(
    ("label", "devices"),
    [
        ("", ()),
        ("nvidia.com/gpu=all", ("nvidia.com/gpu=all",)),
        ("all", ("all",)),
        ("0 GPU-5f0e", ("0", "GPU-5f0e")),
        ("--device=nvidia.com/gpu=0 --device=nvidia.com/gpu=1", ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        ("--gpus=all", ("all",)),
        ('--gpus="device=0,3"', ("0", "3")),
        ('--gpus="device=GPU-5f0e', ("GPU-5f0e",)),
        ('--device=nvidia.com/gpu=0 --gpus="device=0,1"', ("nvidia.com/gpu=0", "0", "1")),
    ],
)
def test_labels_of_both_versions(label, devices):
    assert read_label(label) == devices


@given(st.text())
def test_a_label_of_somebody_elses_is_no_error(text):
    assert all(read_label(text))


def test_a_host_has_a_gpu_when_its_driver_left_any_trace(tmp_path):
    trace = tmp_path / "version"
    assert not host_has_gpu((trace, tmp_path / "other"))
    trace.write_text("NVRM version")
    assert host_has_gpu((tmp_path / "other", trace))
