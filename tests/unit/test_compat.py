"""Which image works on which host: the cases people report, and rules that hold for every host."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit.catalog import Catalog, load_catalog
from kit.catalog.names import ImageRequest
from kit.catalog.rows import Framework, Image, version_key
from kit.decide import compat
from kit.decide.compat import declared_host, resolve
from kit.decide.compat.drivers import Modules
from kit.errors import BadInputError, IncompatibleError, NoSuchImageError
from kit.facts.host import Host, HostGpu, PciGpu

CATALOG = load_catalog()
TORCH, TF = ImageRequest(framework="torch"), ImageRequest(framework="tensorflow")


def host(driver: str, *gpus: str, platform: str = "") -> Host:
    return declared_host(CATALOG, driver=driver, gpus=gpus, platform=platform)


def answer(request: ImageRequest, on: Host) -> str | None:
    image = resolve(request, CATALOG, on).image
    return image.name if image else None


# What people ask in issues, forums and mailing lists, and the right answer for each framework.
CASES: list[tuple[str, tuple[str, ...], str, str | None, str | None]] = [
    ("536.40", ("NVIDIA GeForce RTX 4060 Ti",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("550.54.14", ("NVIDIA GeForce RTX 4060 Ti",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("580.65.06", ("NVIDIA GeForce RTX 4060 Ti",), "", "torch2.15-cu132", "tf2.21-cu125"),
    ("580.65.06", ("NVIDIA GeForce GTX 1080",), "", "torch2.7-cu126", "tf2.21-cu125"),
    ("580.65.06", ("sm_61",), "", "torch2.7-cu126", "tf2.21-cu125"),
    ("580.65.06", ("Tesla V100-SXM2-32GB",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("580.65.06", ("NVIDIA GeForce RTX 5090",), "", "torch2.15-cu132", None),
    ("570.124.06", ("sm_120",), "", "torch2.10-cu128", None),
    ("550.54.14", ("NVIDIA GeForce RTX 5090",), "", None, None),
    ("580.65.06", ("NVIDIA B200",), "", "torch2.15-cu132", None),
    ("470.82.01", ("Tesla K80",), "", "torch2.0-cu117", "tf2.14-cu118"),
    ("570.124.06", ("NVIDIA H200",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("535.54.03", ("NVIDIA H200",), "", "torch2.10-cu128", "tf2.15-cu122"),
    ("580.65.06", ("NVIDIA GeForce GTX 1080", "NVIDIA GeForce RTX 4090"), "", "torch2.7-cu126", "tf2.21-cu125"),
    ("580.65.06", ("NVIDIA GeForce GTX 1080", "NVIDIA GeForce RTX 5090"), "", None, None),
    ("450.80.02", ("Tesla T4",), "", "torch2.0-cu117", "tf2.14-cu118"),
    ("450.51.06", ("Tesla T4",), "", None, None),
    ("525.60.13", ("NVIDIA GeForce RTX 4090",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("525.60.11", ("NVIDIA GeForce RTX 4090",), "", "torch2.0-cu117", "tf2.14-cu118"),
    ("540.4.0", ("Orin (nvgpu)",), "linux/arm64", None, None),
    ("580.65.06", ("NVIDIA GH200 480GB",), "linux/arm64", "torch2.15-cu132", None),
    ("550.54.14", ("NVIDIA GH200 480GB",), "linux/arm64", None, None),
    ("580.65.06", ("NVIDIA GB10",), "linux/arm64", "torch2.15-cu132", None),
    ("580.65.06", ("11.0",), "aarch64", "torch2.15-cu132", None),
    ("580.65.06", ("7.5",), "aarch64", None, None),
    # WSL2: nvidia-smi prints the Windows driver's version, the device manager its own spelling of it.
    ("536.25", ("NVIDIA GeForce RTX 3060",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("31.0.15.3640", ("NVIDIA GeForce RTX 3060",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("32.0.15.8142", ("NVIDIA GeForce RTX 3060",), "", "torch2.15-cu132", "tf2.21-cu125"),
    ("", ("NVIDIA GeForce RTX 4090",), "", "torch2.15-cu132", "tf2.21-cu125"),
    # Drivers that do not know the card any more.
    ("595.71.05", ("NVIDIA GeForce GTX 1050",), "", None, None),
    ("595.71.05", ("Tesla P100-PCIE-16GB",), "", None, None),
    ("590.48.01", ("Tesla V100-SXM2-32GB",), "", None, None),
    ("535.183.01", ("Tesla K80",), "", None, None),
    ("550.54.14", ("GeForce GTX 580",), "", None, None),
    # R580 on Windows counts on to 582; 472 is of R470.
    ("581.80", ("NVIDIA GeForce GTX 1080",), "", "torch2.7-cu126", "tf2.21-cu125"),
    ("591.44", ("NVIDIA GeForce GTX 1080",), "", None, None),
    ("472.12", ("Tesla K80",), "", "torch2.0-cu117", "tf2.14-cu118"),
    ("475.14", ("Tesla K80",), "", "torch2.0-cu117", "tf2.14-cu118"),
    ("496.76", ("Tesla K80",), "", None, None),
    ("620.10", ("NVIDIA GeForce RTX 2080 Ti",), "", "torch2.15-cu132", "tf2.21-cu125"),
    # Kernel modules.
    ("550.54.14-open", ("Tesla P40",), "", None, None),
    ("550.54.14-open", ("Tesla T4",), "", "torch2.10-cu128", "tf2.21-cu125"),
    # As people have them.
    ("r535", ("RTX4090",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("535.183.01-0ubuntu0.22.04.1", ("2080ti",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("570.124.06 (UDA)", ("5090",), "", "torch2.10-cu128", None),
    ("32.0.15.6094", ("3060 laptop",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("12.4", ("4090 D",), "", "torch2.10-cu128", "tf2.21-cu125"),
    ("13.0", ("NVIDIA L40S-48Q",), "", "torch2.15-cu132", "tf2.21-cu125"),
]


@pytest.mark.parametrize(("driver", "gpus", "platform", "torch", "tensorflow"), CASES)
def test_reported_cases(
    driver: str, gpus: tuple[str, ...], platform: str, torch: str | None, tensorflow: str | None
) -> None:
    on = host(driver, *gpus, platform=platform)
    assert (answer(TORCH, on), answer(TF, on)) == (torch, tensorflow)


def test_every_refused_image_has_its_reason() -> None:
    found = resolve(TORCH, CATALOG, host("550.54.14", "NVIDIA GeForce GTX 1080"))
    reasons = {verdict.image.name: verdict.refusals for verdict in found.refused}
    assert reasons["torch2.15-cu132"] == (
        "driver 550.54.14 is older than 580, the oldest for CUDA 13.x",
        "NVIDIA GeForce GTX 1080 (6.1): CUDA 13.0 dropped Pascal (6.1); the wheel has machine code for "
        "7.5, 8.0, 8.6, 9.0, 10.0, 12.0",
    )
    assert reasons["torch2.10-cu128"] == (
        "NVIDIA GeForce GTX 1080 (6.1): the wheel has dropped it: its machine code is for "
        "7.0, 7.5, 8.0, 8.6, 9.0, 10.0, 12.0",
    )
    assert reasons["torch-cpu"] == ("it is for the CPU, and this host has an NVIDIA GPU",)
    assert (
        "it has no lock yet, so it cannot be built: `kit lock` makes one where its index answers"
        in (reasons["torch-cu118"])
    )
    names = {v.image.name for v in found.refused} | {i.name for i in found.alternatives} | {"torch2.7-cu126"}
    assert names == {i.name for i in CATALOG.images() if i.framework == "torch" and not i.flavor}


def test_reasons_of_the_chosen_image() -> None:
    assert resolve(TORCH, CATALOG, host("536.40", "RTX 4060 Ti")).reasons == (
        "driver 536.40 is 525.60.13 or newer, the oldest for CUDA 12.x (minor-version compatibility; CUDA 12.8 came "
        "with 570.26)",
        "NVIDIA GeForce RTX 4060 Ti (8.9): the wheel has machine code for 8.6, which runs on all later 8.x",
    )


def test_ptx_is_a_warning_and_needs_a_driver_as_new_as_its_toolkit() -> None:
    found = resolve(TF, CATALOG, host("570.124.06", "NVIDIA H200"))
    assert found.warnings == (
        "NVIDIA H200 (9.0): the wheel has no machine code for it; the driver compiles it at first use from PTX for "
        "9.0, which can take many minutes once",
    )
    older = compat.judge(CATALOG, CATALOG.find("tf2.21-cu125"), host("550.54.14", "NVIDIA H200"))
    assert older.refusals == (
        "NVIDIA H200 (9.0): only PTX for 9.0 would run on it, and driver 550.54.14 cannot compile that of CUDA 12.5, "
        "which takes 555.42.02 or newer",
    )


def test_code_for_a_capability() -> None:
    torch, tensorflow = CATALOG.find("torch2.7-cu126").release, CATALOG.find("tf2.21-cu125").release
    found = {
        c: compat.code_for(torch, c, "linux/amd64")[0] for c in ("3.7", "5.2", "6.1", "8.9", "9.0", "10.0", "12.0")
    }
    assert found == {"3.7": "", "5.2": "5.0", "6.1": "6.0", "8.9": "8.6", "9.0": "9.0", "10.0": "", "12.0": ""}
    assert compat.code_for(tensorflow, "7.5", "linux/amd64") == ("7.0", False)
    assert compat.code_for(tensorflow, "9.0", "linux/amd64") == ("9.0", True)
    assert compat.code_for(tensorflow, "12.0", "linux/amd64") == ("", False), "its PTX is known to fail there"
    thor = CATALOG.find("torch2.15-cu132").release
    assert [compat.code_for(thor, "11.0", p)[0] for p in ("linux/amd64", "linux/arm64")] == ["", "11.0"]


def test_an_unknown_driver_is_a_warning() -> None:
    found = resolve(TORCH, CATALOG, host("", "RTX 4090"))
    assert found.warnings == ("the driver is not known: CUDA 13.2 needs 580 or newer",)


def test_a_gpu_nobody_named_is_a_warning() -> None:
    found = resolve(TORCH, CATALOG, host("550.54.14"))
    assert found.image == CATALOG.find("torch2.10-cu128")
    assert "its compute capability is not known" in found.warnings[0]


def test_no_driver_is_a_refusal_when_a_gpu_is_on_the_bus() -> None:
    bare = Host(driver="", pci_gpus=(PciGpu(address="0000:01:00.0", device_id="2803"),))
    found = resolve(TORCH, CATALOG, bare)
    assert found.image is None
    assert all("no NVIDIA driver is loaded" in v.refusals[0] for v in found.refused if v.image.is_gpu)
    assert found.hint == (
        "install driver 520.61.05 or newer: `torch2.0-cu117` then works; or run on the CPU: --gpus none"
    )
    problem = compat.objection(CATALOG, CATALOG.find("torch-cu126"), bare)
    assert problem is not None
    assert "no NVIDIA driver is loaded: CUDA 12.6 needs 525.60.13 or newer" in problem.message
    assert problem.hint.endswith("run on the CPU: --gpus none; or go on with --force")


def test_without_a_gpu_the_image_for_the_cpu() -> None:
    assert answer(TF, Host()) == "tf-cpu"
    assert answer(TORCH, Host()) == "torch-cpu"


def test_forward_compatibility_is_for_data_centre_gpus_only() -> None:
    image = CATALOG.find("torch2.15-cu132")
    data_centre = compat.judge(CATALOG, image, host("550.54.14", "NVIDIA H100 PCIe")).refusals[0]
    geforce = compat.judge(CATALOG, image, host("550.54.14", "RTX 4090")).refusals[0]
    mixed = compat.judge(CATALOG, image, host("550.54.14", "NVIDIA H100 PCIe", "RTX 4090")).refusals[0]
    assert "forward compatibility" in data_centre
    assert "forward compatibility" not in geforce + mixed


def test_before_cuda_11_the_floor_is_the_driver_of_the_toolkit() -> None:
    image = CATALOG.find("torch1.5-cu101")
    assert compat.judge(CATALOG, image, host("418.39", "GTX 1080")).refusals == ()
    assert compat.judge(CATALOG, image, host("418.38", "GTX 1080")).refusals == (
        "driver 418.38 is older than 418.39, the oldest for CUDA 10.1",
    )


@pytest.mark.parametrize(
    ("request_", "on", "hint"),
    [
        (TORCH, host("550.54.14", "RTX 5090"), "upgrade the driver to 570.26 or newer: `torch2.10-cu128` then works"),
        (TORCH, host("418.39", "Tesla T4"), "upgrade the driver to 450.80.02 or newer: `torch2.0-cu117` then works"),
        (
            replace(TORCH, version="2.15"),
            host("550.54.14", "RTX 4090"),
            "upgrade the driver to 580 or newer: `torch2.15-cu132` then works; "
            "or take torch 2.10.0: `torch2.10-cu128` works here",
        ),
        (
            replace(TORCH, version="2.10"),
            host("580.65.06", "GTX 1080"),
            "take torch 2.7.1: `torch2.7-cu126` works here",
        ),
        (
            TF,
            host("580.65.06", "RTX 5090"),
            "take NVIDIA's own build of TensorFlow from NGC, nvcr.io/nvidia/tensorflow; "
            "or take PyTorch: `torch2.15-cu132` works here",
        ),
        (TF, host("580.65.06", "GH200", platform="aarch64"), "take PyTorch: `torch2.15-cu132` works here"),
        (
            TORCH,
            host("580.65.06", "GTX 1080", "RTX 5090"),
            "use one GPU alone: `torch2.7-cu126` with --gpus device=0 (NVIDIA GeForce GTX 1080 (6.1)), "
            "`torch2.15-cu132` with --gpus device=1 (NVIDIA GeForce RTX 5090 (12.0))",
        ),
        (
            TORCH,
            host("540.4.0", "Orin (nvgpu)", platform="aarch64"),
            "take an image made for JetPack (github.com/dusty-nv/jetson-containers)",
        ),
        (
            replace(TORCH, version="1.13", python="3.12"),
            host("550.54.14", "RTX 3090"),
            "take torch 2.10.0: `torch2.10-cu128` works here; or take Python 3.9, 3.10: `torch1.13-cu117` works here",
        ),
    ],
)
def test_the_smallest_change_that_helps(request_: ImageRequest, on: Host, hint: str) -> None:
    found = resolve(request_, CATALOG, on)
    assert found.image is None
    assert found.hint == hint


def test_python_narrows_to_images_that_some_base_gives_it() -> None:
    on = host("580.65.06", "RTX 4090")
    for python, name in (("3.12", "torch2.15-cu132"), ("3.11", "torch2.15-cu132"), ("3.10", "torch2.6-cu124")):
        found = resolve(replace(TORCH, python=python), CATALOG, on)
        assert found.image is not None
        assert found.image.name == name
    archive = resolve(replace(TORCH, python="3.11"), CATALOG, on)
    assert archive.reasons[-1] == "Python 3.11 is that of the registry-free base: build it with --base archive"


def test_devel_is_resolved_among_devel_images() -> None:
    assert answer(replace(TORCH, flavor="devel"), host("580.65.06", "GTX 1080")) == "torch2.7-cu126-devel"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch", TORCH),
        ("tf", TF),
        ("tensorflow", TF),
        ("torch2.7", replace(TORCH, version="2.7")),
        ("tf2.19.1", replace(TF, version="2.19.1")),
        ("torch-devel", replace(TORCH, flavor="devel")),
        ("torch-cu126", CATALOG.find("torch2.7-cu126")),
        ("torch2.7-cu126-devel", CATALOG.find("torch2.7-cu126-devel")),
        ("tf-cpu", CATALOG.find("tf-cpu")),
    ],
)
def test_names_that_leave_the_cuda_open_are_requests(name: str, expected: ImageRequest | Image) -> None:
    assert compat.parse_name(CATALOG, name) == expected


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(NoSuchImageError, match="torhc"):
        compat.parse_name(CATALOG, "torhc")


def test_an_image_that_was_named_is_taken_unless_it_cannot_work() -> None:
    good, on = CATALOG.find("torch2.7-cu126"), host("580.65.06", "GTX 1080")
    assert compat.choose(CATALOG, "torch-cu126", on) == (good, None)
    assert compat.objection(CATALOG, good, on) is None
    problem = compat.objection(CATALOG, CATALOG.find("torch2.10-cu128"), on)
    assert isinstance(problem, IncompatibleError)
    assert problem.message.startswith("torch2.10-cu128 cannot work on this host: NVIDIA GeForce GTX 1080 (6.1)")
    assert problem.hint == "`torch2.7-cu126` works here; or go on with --force"


def test_choose_raises_with_every_reason_once() -> None:
    with pytest.raises(IncompatibleError) as raised:
        compat.choose(CATALOG, "tf", host("580.65.06", "RTX 5090"))
    assert raised.value.message == ("no image for `tf` works with driver 580.65.06, NVIDIA GeForce RTX 5090 (12.0)")
    assert len(raised.value.details) == len(set(raised.value.details))
    assert "tf2.21-cu125, tf2.19-cu125, tf2.17-cu123: " in raised.value.details[0]


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("NVIDIA GeForce RTX 4090", "8.9"),
        ("GeForce RTX 4090", "8.9"),  # as drivers before R470 print it
        ("rtx 4090", "8.9"),
        ("4090", "8.9"),
        ("A100", "8.0"),
        ("Tesla T4", "7.5"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0"),
        ("sm_89", "8.9"),
        ("sm_90a", "9.0"),
        ("compute_120", "12.0"),
        ("8.6", "8.6"),
        ("10.3", "10.3"),
    ],
)
def test_gpus_by_name_and_by_capability(text: str, capability: str) -> None:
    assert compat.gpu_by_name(CATALOG, text)[1] == capability


@pytest.mark.parametrize("text", ["", "RTX 9999 Ti", "sm_", "8,9", "Radeon RX 7900", "RTX", "sm_9000"])
def test_gpus_that_are_none_or_several(text: str) -> None:
    with pytest.raises(BadInputError, match="--gpu"):
        compat.gpu_by_name(CATALOG, text)


@pytest.mark.parametrize(
    ("text", "version", "modules"),
    [
        ("550.54.14", "550.54.14", ""),
        (" 550.54.14-open ", "550.54.14", "open"),
        ("535.183.01-0ubuntu0.22.04.1", "535.183.01", ""),
        ("550.163.01-2", "550.163.01", ""),
        ("3:570.133.20-1.fc42", "570.133.20", ""),
        ("r535", "535", ""),
        ("R580", "580", ""),
        ("535.x", "535", ""),
        ("570.124.06 (UDA)", "570.124.06", ""),
        ("32.0.15.6094", "560.94", ""),
        ("nvidia-driver-570-open", "570", "open"),
        ("nvidia-driver-535-server", "535", ""),
        ("Driver Version: 550.54.14", "550.54.14", ""),
        ("570.xx", "570", ""),
        ("535 (server)", "535", ""),
        ("nvidia-driver-550-server-open", "550", "open"),
        ("nvidia-tesla-470-driver", "470", ""),
        ("akmod-nvidia-580xx", "580", ""),
        ("cuda-drivers-550", "550", ""),
        ("NVIDIA-Linux-x86_64-550.54.14.run", "550.54.14", ""),
        ("NVIDIA-SMI 550.54.14", "550.54.14", ""),
        ("GeForce Game Ready Driver 576.88 WHQL", "576.88", ""),
        ("| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: 12.4  |", "550.54.14", ""),
        ("NVIDIA UNIX Open Kernel Module for x86_64  570.124.06", "570.124.06", "open"),
    ],
)
def test_drivers_as_people_have_them(text: str, version: str, modules: str) -> None:
    found = compat.declared_driver(CATALOG, text)
    assert (found.version, found.modules, found.note) == (version, modules, "")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("12.4", "550.54.14"),
        ("CUDA 12.4", "550.54.14"),
        ("12.4.1", "550.54.14"),
        ("12.7", "560.28.03"),
        ("13.0", "580.65.06"),
        ("cu124", "550.54.14"),
        ("CUDA Version: 12.2", "535.54.03"),
    ],
)
def test_a_cuda_version_is_the_driver_that_shows_it(text: str, version: str) -> None:
    found = compat.declared_driver(CATALOG, text)
    assert found.version == version
    assert "the CUDA version that nvidia-smi shows" in found.note


@pytest.mark.parametrize(
    "text", ["9.0", "12", "124", "99.9", "12.4;rm", "31.0.101.5522", "470.1 or 550.54.14", "latest"]
)
def test_what_is_neither_a_driver_nor_a_cuda_version(text: str) -> None:
    with pytest.raises(BadInputError, match="--driver"):
        compat.declared_driver(CATALOG, text)


@given(st.text(alphabet="0123456789.-+ ropenuvR()~:xcud", max_size=24))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_driver_or_refused(text: str) -> None:
    try:
        found = compat.declared_driver(CATALOG, text)
    except BadInputError:
        return
    assert version_key(found.version)[0] >= 100
    assert found.modules in ("", "open")


@pytest.mark.parametrize("text", ["12.8", "driver", "550.54.14.1", "55", "5500", "550.", "-1", "550.54.14;rm"])
def test_drivers_that_are_none(text: str) -> None:
    with pytest.raises(BadInputError, match="--driver"):
        compat.parse_driver(text)


def test_platforms_that_are_none() -> None:
    with pytest.raises(BadInputError, match="--platform"):
        host("550.54.14", "sm_89", platform="windows")


def test_every_gpu_of_the_catalog_is_found_by_its_own_names() -> None:
    for gpu in CATALOG.gpus:
        for name in gpu.names:
            assert compat.gpu_by_name(CATALOG, name) == (name, gpu.compute_capability)


def test_a_measured_gpu_without_a_capability_has_that_of_its_name() -> None:
    # Drivers before R470 do not know nvidia-smi's compute_cap.
    gpu = HostGpu(name="GeForce GTX 1080")
    assert compat.capability_of(CATALOG, gpu) == "6.1"
    assert compat.capability_of(CATALOG, HostGpu(name="Graphics Device")) == ""


# Hosts as they can be: any driver of the tables and near them, any GPUs of the catalog.
NUMBERS = sorted(
    {d for t in CATALOG.toolkits for d in (t.min_driver, *(pair[1] for pair in t.drivers)) if d}, key=version_key
)
drivers = st.one_of(
    st.sampled_from(NUMBERS),
    st.tuples(st.integers(390, 620), st.integers(0, 200), st.integers(0, 30)).map(
        lambda p: f"{p[0]}.{p[1]:02}.{p[2]:02}"
    ),
)
known_gpus = st.sampled_from([(name, gpu.compute_capability) for gpu in CATALOG.gpus for name in gpu.names])
requests = st.builds(
    ImageRequest,
    framework=st.sampled_from(["torch", "tensorflow"]),
    version=st.sampled_from(["", "2", "2.7", "2.10", "2.15", "2.21", "1.13"]),
    flavor=st.sampled_from(["", "devel"]),
    python=st.sampled_from(["", "3.9", "3.11", "3.12"]),
)
platforms = st.sampled_from(["linux/amd64", "linux/arm64"])


def machine(driver: str | None, gpus: list[tuple[str, str]], platform: str) -> Host:
    return Host(
        driver=driver,
        platform=platform,
        gpus=tuple(HostGpu(name=n, compute_capability=c, index=i) for i, (n, c) in enumerate(gpus)),
    )


@given(requests, drivers, st.lists(known_gpus, min_size=1, max_size=3), platforms)
@settings(max_examples=150, deadline=None)
def test_never_an_image_above_the_driver_or_without_code_for_a_gpu(
    request: ImageRequest, driver: str, gpus: list[tuple[str, str]], platform: str
) -> None:
    found = resolve(request, CATALOG, machine(driver, gpus, platform))
    for image in ([found.image] if found.image else []) + list(found.alternatives):
        assert version_key(CATALOG.min_driver(image)) <= version_key(driver)
        assert platform in image.release.platforms
        for _, capability in gpus:
            assert compat.code_for(image.release, capability, platform)[0]
            assert not compat.driver_objection(CATALOG, capability, driver)
        assert not CATALOG.unlocked_reason(image)
    assert (found.image is None) == (not any(not v.refusals for v in found.refused) and not found.reasons)
    assert all(v.refusals for v in found.refused)


def rank(image: Image | None) -> tuple[object, ...]:
    return (version_key(image.release.version), version_key(image.release.cuda or "0")) if image else ()


@given(requests, drivers, drivers, st.lists(known_gpus, min_size=1, max_size=3), platforms)
@settings(max_examples=150, deadline=None)
def test_a_newer_driver_never_makes_the_answer_worse(
    request: ImageRequest, one: str, other: str, gpus: list[tuple[str, str]], platform: str
) -> None:
    older, newer = sorted((one, other), key=version_key)
    # But for one that does not know the GPU any more.
    assume(not any(compat.is_too_new(CATALOG, capability, newer) for _, capability in gpus))
    before = resolve(request, CATALOG, machine(older, gpus, platform))
    after = resolve(request, CATALOG, machine(newer, gpus, platform))
    assert rank(after.image) >= rank(before.image)
    fitted = {i.name for i in (*before.alternatives, *([before.image] if before.image else []))}
    assert fitted <= {i.name for i in (*after.alternatives, *([after.image] if after.image else []))}


@given(requests, drivers, st.lists(known_gpus, min_size=0, max_size=2), known_gpus, platforms)
@settings(max_examples=150, deadline=None)
def test_another_gpu_never_adds_a_candidate(
    request: ImageRequest, driver: str, gpus: list[tuple[str, str]], more: tuple[str, str], platform: str
) -> None:
    before = resolve(request, CATALOG, machine(driver, gpus, platform))
    after = resolve(request, CATALOG, machine(driver, [*gpus, more], platform))
    fitted = {i.name for i in (*after.alternatives, *([after.image] if after.image else []))}
    assert fitted <= {i.name for i in (*before.alternatives, *([before.image] if before.image else []))}


@given(requests, drivers, st.lists(known_gpus, min_size=1, max_size=3), platforms)
@settings(max_examples=100, deadline=None)
def test_declared_and_measured_hosts_agree(
    request: ImageRequest, driver: str, gpus: list[tuple[str, str]], platform: str
) -> None:
    declared = declared_host(CATALOG, driver=driver, gpus=tuple(name for name, _ in gpus), platform=platform)
    by_name, measured = (resolve(request, CATALOG, h) for h in (declared, machine(driver, gpus, platform)))
    assert by_name == measured
    # Old drivers tell the name only.
    nameless = replace(declared, gpus=tuple(replace(g, compute_capability="") for g in declared.gpus))
    assert resolve(request, CATALOG, nameless).image == measured.image


@given(requests, drivers, st.lists(known_gpus, min_size=1, max_size=2), platforms)
@settings(max_examples=100, deadline=None)
def test_the_driver_of_a_hint_does_help(
    request: ImageRequest, driver: str, gpus: list[tuple[str, str]], platform: str
) -> None:
    on = machine(driver, gpus, platform)
    found = resolve(request, CATALOG, on)
    assert bool(found.hint) == (found.image is None)
    if found.image is None and found.hint.startswith("upgrade the driver to "):
        helps = found.hint.split()[4]
        assert resolve(request, CATALOG, replace(on, driver=helps)).image
        assert version_key(helps) > version_key(driver)
    if found.image is None and (
        match := re.match(r"go back to driver R(\d+), the last one for this GPU: `(\S+)`", found.hint)
    ):
        assert resolve(request, CATALOG, replace(on, driver=match[1])).image == CATALOG.find(match[2])
        assert int(match[1]) < compat.branch_of(driver)


CARDS = sorted({row.compute_capability for row in CATALOG.chips}, key=version_key)


def test_every_card_with_every_branch_stays_in_its_window() -> None:
    """Each chip there is, each branch of drivers: an image only from the first to the last branch, and with code."""
    for capability in CARDS:
        first, end = compat.first_driver(CATALOG, capability), compat.last_branch(CATALOG, capability)
        for branch in (340, 395, 418, 450, 470, 475, 520, 535, 570, 580, 581, 591, 620):
            on = host(str(branch), capability)
            for request in (TORCH, TF):
                found = resolve(request, CATALOG, on)
                if found.image:
                    assert not first or branch >= version_key(first)[0], (capability, branch)
                    assert not end or branch <= end or branch in (475, 581), (capability, branch)
                    assert compat.code_for(found.image.release, capability, on.platform)[0]
                else:
                    assert found.hint, (capability, branch)
                    assert "upgrade the driver" not in found.hint or not end or branch <= end


def test_a_driver_window_has_a_first_and_a_last_branch_in_order() -> None:
    for capability in CARDS:
        first, end = compat.first_driver(CATALOG, capability), compat.last_branch(CATALOG, capability)
        assert first or end, capability
        assert not (first and end) or version_key(first)[0] <= end
        without = {a.compute_capability: a.first_without for a in CATALOG.architectures}[capability]
        assert (without is None) == (end is None)
        assert without is None or without > (end or 0)


@pytest.mark.parametrize(
    ("capability", "driver", "modules", "says"),
    [
        ("6.1", "595.71.05", "", "R580 is the last driver for this card, as for all of Pascal (6.1)"),
        ("3.7", "535.54.03", "", "R470 is the last driver for this card"),
        ("7.0", "581.80", "", ""),
        ("12.0", "550.54.14", "", "older than the branch that brought it, 570.26"),
        ("6.1", "580.65.06", "open", "takes the proprietary ones"),
        ("12.0", "580.65.06", "proprietary", "takes the open ones"),
        ("7.5", "580.65.06", "open", ""),
        ("7.5", "580.65.06", "proprietary", ""),
    ],
)
def test_what_speaks_against_a_driver(capability: str, driver: str, modules: Modules, says: str) -> None:
    found = compat.driver_objection(CATALOG, capability, driver, modules)
    assert says in found
    assert bool(says) == bool(found)


def test_from_r620_on_there_are_open_modules_alone() -> None:
    assert [compat.modules_for(CATALOG, "7.5", driver) for driver in ("", "615.10", "620.10")] == ["", "", "open"]
    assert [compat.modules_for(CATALOG, c) for c in ("6.1", "8.9", "12.0")] == ["proprietary", "", "open"]


def test_a_gpu_that_no_driver_shows_is_known_by_its_pci_id() -> None:
    """A machine whose driver is too new for its card: nvidia-smi finds no device, and no CPU image is chosen."""
    on = Host(driver="595.71.05", pci_gpus=(PciGpu(address="0000:01:00.0", device_id="1c81", driver="nvidia"),))
    found = resolve(TORCH, CATALOG, on)
    assert found.image is None
    assert "R580 is the last driver" in found.refused[0].refusals[0]
    assert found.hint == "go back to driver R580, the last one for this GPU: `torch2.7-cu126` then works"
    kept = replace(on, pci_gpus=(replace(on.pci_gpus[0], driver="vfio-pci"),))
    assert compat.with_pci_gpus(CATALOG, kept).gpus == (), "it is a virtual machine's"


def test_releases_that_are_not_in_the_catalog_are_named() -> None:
    pascal = resolve(TORCH, CATALOG, host("580.65.06", "GTX 1080")).newer
    assert pascal == (
        "not in the catalog: PyTorch 2.8 to 2.14 for CUDA 12.6 have code for this GPU too, on "
        "https://download.pytorch.org/whl/cu126",
    )
    assert resolve(TORCH, CATALOG, host("580.65.06", "V100")).newer == pascal
    assert resolve(TORCH, CATALOG, host("595.71.05", "V100")).newer == pascal, "another driver is no other card"
    for gpu, request in (("RTX 3060", TORCH), ("Tesla K80", TORCH), ("RTX 5090", TORCH), ("GTX 1080", TF)):
        assert resolve(request, CATALOG, host("470.82.01", gpu)).newer == ()


def test_what_a_card_cannot_do_is_said() -> None:
    said = {gpu: resolve(TORCH, CATALOG, host("580.65.06", gpu)).limits for gpu in ("1080ti", "T4", "3090", "4090")}
    assert said == {
        "1080ti": ("1080ti (6.1) has no bf16, FlashAttention, fp8, torch.compile",),
        "T4": ("T4 (7.5) has no bf16, FlashAttention, fp8",),
        "3090": ("3090 (8.6) has no fp8",),
        "4090": (),
    }
    assert resolve(TF, CATALOG, host("580.65.06", "T4")).limits == ("T4 (7.5) has no bf16, fp8",)
    assert resolve(TF, CATALOG, host("580.65.06", "GH200", platform="aarch64")).limits == (
        "GH200 (9.0) has no TensorFlow on the GPU",
    )


@pytest.mark.parametrize("name", ["torch2.10-cu128", "tf2.19-cu125", "tf2.21-cu125"])
def test_an_aarch64_wheel_that_is_the_cpu_s_is_refused(name: str) -> None:
    refusals = compat.judge(CATALOG, CATALOG.find(name), host("580.65.06", "GH200", platform="aarch64")).refusals
    assert refusals[0].endswith("only for linux/amd64; its aarch64 wheel is a CPU build")


def test_catalog_rules(catalog: Catalog) -> None:
    for release in catalog.releases:
        if release.cuda and "linux/arm64" in release.platforms:
            assert release.arm64_wheel == "cuda", release.name
        if release.ptx_newest:
            assert release.ptx, release.name
            assert release.ptx_note, release.name
            assert release.ptx_source, release.name
        for platform, capabilities in release.compute_capabilities_on:
            assert platform in release.platforms
            assert capabilities
        for platform in release.platforms:
            assert platform in {row.name for row in catalog.platforms}


def test_frameworks_are_all_asked_for() -> None:
    frameworks: set[Framework] = {r.framework for r in CATALOG.releases}
    assert frameworks == {TORCH.framework, TF.framework}
