import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import gpu
from kit.engine import EngineInfo
from kit.errors import BadInputError, GpuUnavailableError
from kit.gpu import Injection, host_has_gpu, parse_request, spec_devices

ALL = ("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=GPU-5f0e", "nvidia.com/gpu=all")
HIDDEN = (("NVIDIA_VISIBLE_DEVICES", "void"),)


def inject(text, info, **more):
    return gpu.inject(None if text is None else parse_request(text), info, **more)


def engine(*, cdi=(), dirs=(), runtimes=("runc",)):
    return EngineInfo(
        version="28",
        is_containerd_store=True,
        cdi_devices=tuple(cdi),
        cdi_spec_dirs=tuple(dirs),
        runtimes=tuple(runtimes),
        data_root="/",
        cpus=1,
        memory_bytes=1,
    )


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


@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        (None, ("--device=nvidia.com/gpu=all",)),
        ("all", ("--device=nvidia.com/gpu=all",)),
        ("device=1", ("--device=nvidia.com/gpu=1",)),
        ("0,1", ("--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=1")),
        ("GPU-5f0e", ("--device=nvidia.com/gpu=GPU-5f0e",)),
    ],
)
@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("runtimes", [("runc",), ("nvidia", "runc")])
def test_a_cdi_device_goes_first(request_, arguments, has_gpu, runtimes):
    found = inject(request_, engine(cdi=ALL, runtimes=runtimes), is_gpu_image=True, has_gpu=has_gpu)
    # Where the nvidia runtime is the default, it would add every GPU to the one that was asked for.
    assert found == Injection(arguments=arguments, environment=HIDDEN)


def test_devices_of_other_vendors_are_not_taken():
    with pytest.raises(GpuUnavailableError):
        inject("all", engine(cdi=["vendor.com/net=all"]), is_gpu_image=True, has_gpu=True)


def test_a_specification_without_all_gives_everything_it_lists():
    found = inject(
        None,
        engine(cdi=["nvidia.com/gpu=0", "nvidia.com/gpu=1", "x.y/z=0"]),
        is_gpu_image=True,
        has_gpu=False,
    )
    assert found.arguments == ("--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=1")
    assert found.note == ""


def test_an_index_that_the_engine_does_not_know_is_an_error_that_lists_those_it_knows():
    with pytest.raises(GpuUnavailableError, match=r"knows no nvidia\.com/gpu=7, nvidia\.com/gpu=8$") as caught:
        inject("0,7,8", engine(cdi=ALL), is_gpu_image=True, has_gpu=True)
    assert caught.value.details == ("it knows: " + ", ".join(ALL),)
    assert "nvidia-ctk" in caught.value.hint


CHOSEN = (("GPU-5f0e", "0"), ("GPU-77aa", "1"))


def test_a_chosen_gpu_goes_by_its_uuid_where_the_engine_lists_it_else_by_its_index():
    found = inject("2", engine(cdi=ALL), is_gpu_image=True, has_gpu=True, devices=CHOSEN)
    assert found.arguments == ("--device=nvidia.com/gpu=GPU-5f0e", "--device=nvidia.com/gpu=1")


def test_a_chosen_gpu_that_the_engine_lists_by_no_name_is_an_error():
    with pytest.raises(GpuUnavailableError, match=r"knows no nvidia\.com/gpu=GPU-9999$"):
        inject("free", engine(cdi=ALL), is_gpu_image=True, has_gpu=True, devices=(("GPU-9999", "7"),))
    # What the machine has is everything the engine lists only when nothing was chosen.
    with pytest.raises(GpuUnavailableError):
        inject(None, engine(cdi=ALL), is_gpu_image=True, has_gpu=True, devices=(("GPU-9999",),))


def test_the_nvidia_runtime_takes_chosen_gpus_by_uuid():
    found = inject("2", engine(runtimes=("nvidia",)), is_gpu_image=True, has_gpu=True, devices=CHOSEN)
    assert found.arguments == ('--gpus="device=GPU-5f0e,GPU-77aa"',)


@pytest.mark.parametrize(
    ("request_", "argument"),
    [(None, "--gpus=all"), ("all", "--gpus=all"), ("device=0", '--gpus="device=0"'), ("0,3", '--gpus="device=0,3"')],
)
def test_the_nvidia_runtime_is_taken_when_there_is_no_cdi_device(request_, argument):
    found = inject(request_, engine(runtimes=("nvidia", "runc")), is_gpu_image=True, has_gpu=True)
    # Without it the runtime refuses drivers that minor-version compatibility lets through.
    assert found == Injection(arguments=(argument,), environment=(("NVIDIA_DISABLE_REQUIRE", "1"),))


@pytest.mark.parametrize("request_", [None, "all", "device=0", "0,1"])
def test_a_gpu_that_the_engine_cannot_pass_through_is_never_silently_left_out(request_):
    with pytest.raises(
        GpuUnavailableError, match="this host has an NVIDIA GPU, but the container engine cannot"
    ) as caught:
        inject(request_, engine(), is_gpu_image=True, has_gpu=True)
    assert "NVIDIA Container Toolkit" in caught.value.hint
    assert "--gpus none" in caught.value.hint


@pytest.mark.parametrize("runtimes", [("runc",), ("nvidia", "runc")])
def test_a_host_without_a_gpu_runs_on_the_cpu_and_says_so(runtimes):
    """Also where the Container Toolkit is installed all the same, as on a cluster's login node."""
    found = inject(None, engine(runtimes=runtimes), is_gpu_image=True, has_gpu=False)
    assert found == Injection(environment=HIDDEN, note="no NVIDIA GPU on this host: running on the CPU")


def test_a_gpu_asked_for_on_a_host_without_one_is_an_error():
    with pytest.raises(GpuUnavailableError, match="--gpus all was asked for, but"):
        inject("all", engine(), is_gpu_image=True, has_gpu=False)


@pytest.mark.parametrize("info", [engine(), engine(cdi=ALL), engine(runtimes=("nvidia",))])
@pytest.mark.parametrize("has_gpu", [True, False])
def test_none_hides_the_gpus_from_a_default_nvidia_runtime_too(info, has_gpu):
    assert inject("none", info, is_gpu_image=True, has_gpu=has_gpu) == Injection(environment=HIDDEN)


@pytest.mark.parametrize("request_", [None, "none"])
@pytest.mark.parametrize("info", [engine(), engine(cdi=ALL, runtimes=("nvidia",))])
def test_an_image_for_the_cpu_gets_no_gpu_and_no_note(request_, info):
    assert inject(request_, info, is_gpu_image=False, has_gpu=True) == Injection()


def test_gpus_for_an_image_for_the_cpu_are_an_error_that_names_it():
    with pytest.raises(GpuUnavailableError, match="tf-cpu is built for the CPU, so --gpus free cannot work"):
        inject("free", engine(cdi=ALL), is_gpu_image=False, has_gpu=True, image="tf-cpu")


@pytest.mark.parametrize("is_gpu_image", [True, False])
def test_a_malformed_request_is_bad_input_on_every_image(is_gpu_image):
    with pytest.raises(BadInputError):
        inject("two", engine(cdi=ALL), is_gpu_image=is_gpu_image, has_gpu=True)


# As `nvidia-ctk cdi generate` writes them.
YAML = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-5f0e1a2b
- containerEdits: {}
  name: all
"""


def test_devices_are_read_from_specifications_of_engines_that_do_not_list_them(tmp_path):
    (tmp_path / "nvidia.yaml").write_text(YAML)
    assert spec_devices((str(tmp_path), "/no/such/folder")) == (
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=GPU-5f0e1a2b",
        "nvidia.com/gpu=all",
    )


def test_specifications_in_json_are_read_too(tmp_path):
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "mig0:1", "containerEdits": {}}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document, separators=(",", ":")))
    (tmp_path / "b.json").write_text(json.dumps(document, indent=2).replace("mig0:1", "all"))
    assert spec_devices((str(tmp_path),)) == ("nvidia.com/gpu=mig0:1", "nvidia.com/gpu=all")


def test_files_that_are_no_specification_count_for_nothing(tmp_path):
    (tmp_path / "other.yaml").write_text(YAML.replace("nvidia.com/gpu", "nvidia.com/gpus"))
    (tmp_path / "notes.txt").write_text(YAML)
    (tmp_path / "binary.json").write_bytes(b"\xff\x00")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    assert spec_devices((str(tmp_path),)) == ()


def test_injection_looks_into_the_folders_only_when_the_engine_lists_no_devices(tmp_path):
    (tmp_path / "nvidia.yaml").write_text(YAML)
    found = inject("device=0", engine(dirs=[str(tmp_path)]), is_gpu_image=True, has_gpu=True)
    assert found.arguments == ("--device=nvidia.com/gpu=0",)
    with pytest.raises(GpuUnavailableError):
        inject(
            "GPU-5f0e1a2b",
            engine(cdi=["nvidia.com/gpu=0"], dirs=[str(tmp_path)]),
            is_gpu_image=True,
            has_gpu=True,
        )


def test_a_host_has_a_gpu_when_its_driver_left_any_trace(tmp_path):
    trace = tmp_path / "version"
    assert not host_has_gpu((trace, tmp_path / "other"))
    trace.write_text("NVRM version")
    assert host_has_gpu((tmp_path / "other", trace))
