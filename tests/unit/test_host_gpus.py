"""What the driver prints, recorded on real machines (tests/unit/data/host/README.md), cut short, and broken."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.facts.host import GpuProcess, HostGpu, MigInstance, PciGpu
from kit.host.parse_gpus import (
    complete,
    parse_capabilities,
    parse_library_version,
    parse_list,
    parse_module_version,
    parse_pci,
    parse_smi,
    pci_address,
    program_name,
)

DATA = Path(__file__).parent / "data" / "host"
REPORTS = sorted(DATA.glob("smi-*.xml"))


def smi(name):
    return parse_smi((DATA / f"smi-{name}.xml").read_text())


def test_a_blackwell_with_a_process():
    driver = smi("blackwell-590")
    assert (driver.version, driver.cuda, driver.problem) == ("590.44.01", "13.1", "")
    assert driver.gpus == (
        HostGpu(
            name="NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
            uuid="GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
            pci_address="0000:61:00.0",
            device_id="2bb4",
            memory_mib=97887,
            memory_used_mib=65720,
            utilisation_percent=0,
            temperature_c=24,
            power_draw_w=3.99,
            power_limit_w=300.0,
            power_default_w=300.0,
            processes=(GpuProcess(pid=116860, name="llama-server", memory_mib=65710),),
        ),
    )


def test_an_a100_with_mig_instances():
    (gpu,) = smi("a100-mig-535").gpus
    assert gpu.is_mig_enabled
    assert gpu.mig_instances == tuple(
        MigInstance(uuid="", index=i, gpu_instance=3 + i, compute_instance=0, memory_mib=19968, memory_used_mib=12)
        for i in range(4)
    )
    assert (gpu.uuid, gpu.memory_mib, gpu.memory_used_mib) == ("GPU-513536b6-7d19-9063-b049-1e69664bb298", 81920, 50)
    assert (gpu.utilisation_percent, gpu.power_draw_w, gpu.power_limit_w) == (None, 67.03, 500.0)
    assert gpu.processes == ()


def test_the_older_power_readings():
    (gpu,) = smi("pascal-525").gpus
    assert (gpu.name, gpu.power_draw_w, gpu.power_limit_w, gpu.power_default_w) == ("Quadro P2000", 4.61, 75.0, 75.0)
    assert gpu.processes == ()


def test_a_report_that_says_little():
    driver = smi("1070ti-v10")
    (gpu,) = driver.gpus
    assert (driver.version, driver.cuda) == (None, "")
    assert (gpu.name, gpu.memory_mib, gpu.temperature_c, gpu.power_draw_w) == ("GeForce GTX 1070 Ti", 4096, 39, None)
    assert (gpu.pci_address, gpu.processes, gpu.is_mig_enabled) == ("0000:01:00.0", None, False)


def test_driver_610_names_its_parts():
    # The names of the elements: find_string `<cuda_umd_version>` over public repositories.
    driver = parse_smi(
        "<nvidia_smi_log><kmd_version>610.57.04</kmd_version><cuda_umd_version>13.3</cuda_umd_version></nvidia_smi_log>"
    )
    assert (driver.version, driver.cuda) == ("610.57.04", "13.3")


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.stem)
def test_a_report_cut_off_anywhere_gives_no_wrong_gpu(file):
    text = file.read_text()
    whole = parse_smi(text).gpus
    for end in range(0, len(text), 7):
        assert parse_smi(text[:end]).gpus in ((), whole)


@pytest.mark.parametrize(
    "value", ["N/A", "[N/A]", "[Not Supported]", "ERR!", "", "Insufficient Permissions", "²", "1e9"]
)
def test_values_the_driver_does_not_have_are_unknown(value):
    text = (DATA / "smi-pascal-525.xml").read_text()
    text = text.replace("5120 MiB", value).replace("4.61 W", value).replace("34 C", value).replace("0 %", value)
    (gpu,) = parse_smi(text).gpus
    assert (gpu.memory_mib, gpu.power_draw_w, gpu.temperature_c, gpu.utilisation_percent) == (None, None, None, None)


# Lines that public repositories and issues quote; the spelling before the address differs by driver.
@pytest.mark.parametrize(
    ("line", "index", "address", "problem"),
    [
        (
            "Unable to determine the device handle for GPU 0000:05:00.0: GPU is lost.  Reboot the system to recover "
            "this GPU",
            1,
            "0000:05:00.0",
            "GPU is lost.  Reboot the system to recover this GPU",
        ),
        (
            "Unable to determine the device handle for GPU0000:CB:00.0: Unknown Error",
            1,
            "0000:cb:00.0",
            "Unknown Error",
        ),
        (
            "Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error",
            1,
            "0000:34:00.0",
            "Unknown Error",
        ),
        ("Unable to determine the device handle for GPU 3: Unknown Error", 3, "", "Unknown Error"),
    ],
)
def test_a_lost_gpu_beside_one_that_answers(line, index, address, problem):
    driver = parse_smi(line + "\n" + (DATA / "smi-pascal-525.xml").read_text())
    assert [gpu.name for gpu in driver.gpus] == ["Quadro P2000", ""]
    lost = driver.gpus[1]
    assert (lost.index, lost.pci_address, lost.problem) == (index, address, problem)


@pytest.mark.parametrize("word", ["GPU is lost", "ERR!", "Unknown Error", "[Unknown Error]", "[GPU requires reset]"])
def test_a_fault_in_place_of_the_name(word):
    text = (DATA / "smi-pascal-525.xml").read_text().replace("Quadro P2000", word)
    (gpu,) = parse_smi(text).gpus
    assert gpu.name == ""
    assert gpu.problem == word.strip("[]") or word.strip("[]") in gpu.problem


@pytest.mark.parametrize(
    "text",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
        "NVIDIA driver is installed and running.",
        "Failed to initialize NVML: Driver/library version mismatch",
        "No devices were found",
    ],
)
def test_what_nvidia_smi_says_instead_of_a_report(text):
    driver = parse_smi(f"\n{text}\n\n")
    assert (driver.version, driver.gpus, driver.problem) == (None, (), text)


def test_a_mismatch_keeps_the_library_version():
    text = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.173\n"
    assert parse_smi(text).problem == text.strip().replace("\n", " ")


@given(st.text(max_size=300))
def test_garbage_is_no_gpu_and_no_error(text):
    assert isinstance(parse_smi(text).gpus, tuple)
    assert isinstance(parse_smi(f'<gpu id="{text}">{text}</gpu>').gpus, tuple)
    assert parse_capabilities(text) == {}
    assert isinstance(parse_list(text), dict)
    assert isinstance(parse_module_version(text), str)
    assert isinstance(parse_library_version(text), str)
    assert isinstance(parse_pci(text), tuple)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/usr/bin/python3", "python3"),
        ("/usr/bin/python3 train.py --token=hf_secret", "python3"),
        ("/usr/share/spotify/spotify --log-file=/usr/share/spotify/debug.log", "spotify"),
        ("VLLM::EngineCore", "VLLM::EngineCore"),
        ("C:\\Program Files\\App\\app.exe", "app.exe"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_program_names(text, name):
    assert program_name(text) == name


def test_a_process_that_has_no_name():
    text = (DATA / "smi-blackwell-590.xml").read_text()
    text = text.replace("/root/src/llama.cpp/build/bin/llama-server", "[Not Found]").replace("65710 MiB", "N/A")
    assert parse_smi(text).gpus[0].processes == (GpuProcess(pid=116860, name=""),)


@pytest.mark.parametrize(
    ("kinds", "is_graphics"), [("G", True), ("C+G", False), ("C", False), ("GC", False), ("CG", False)]
)
def test_processes_that_only_draw(kinds, is_graphics):
    text = (DATA / "smi-blackwell-590.xml").read_text()
    entry = text[text.index("<process_info>") : text.index("</process_info>") + len("</process_info>")]
    listed = [kinds] if "+" in kinds else list(kinds)
    text = text.replace(entry, "".join(entry.replace("<type>C<", f"<type>{kind}<") for kind in listed))
    (process,) = parse_smi(text).gpus[0].processes
    assert process.is_graphics is is_graphics


def test_processes_that_the_driver_does_not_list():
    text = (
        (DATA / "smi-pascal-525.xml").read_text().replace("<processes>\n\t\t</processes>", "<processes>N/A</processes>")
    )
    assert parse_smi(text).gpus[0].processes is None


def test_capabilities_by_uuid():
    text = "0, GPU-11111111-aaaa, 8.0\n1, GPU-22222222-bbbb, 12.0\n"
    assert parse_capabilities(text) == {"GPU-11111111-aaaa": (0, "8.0"), "GPU-22222222-bbbb": (1, "12.0")}


@pytest.mark.parametrize(
    "text",
    ['Field "compute_cap" is not a valid field to query.\n', "0, [N/A], [N/A]\n", "0, GPU-1111, [Not Supported]\n", ""],
)
def test_capabilities_an_older_driver_does_not_know(text):
    assert parse_capabilities(text) == {}


def test_the_list_names_mig_instances():
    found = parse_list((DATA / "smi-list-mig.txt").read_text())
    assert found == {
        "GPU-9c73eb7b-8d6d-6c0e-dc13-97873e2ede40": [
            ("1g.10gb", "MIG-a686709d-6dc2-542a-8851-0d2508448c10"),
            ("1g.10gb", "MIG-53864714-0a66-5df2-9007-9268e30d9a72"),
        ]
    }


def test_instances_get_their_names_and_processes_theirs():
    gpu = HostGpu(
        name="A100",
        uuid="GPU-1",
        is_mig_enabled=True,
        mig_instances=(
            MigInstance(uuid="", gpu_instance=3, compute_instance=0),
            MigInstance(uuid="", gpu_instance=4, compute_instance=0),
        ),
        processes=(GpuProcess(pid=7, name="python", mig_uuid="4/0"), GpuProcess(pid=8, name="x", mig_uuid="9/9")),
    )
    found = complete(gpu, {"GPU-1": (2, "8.0")}, {"GPU-1": [("1g.5gb", "MIG-a"), ("2g.10gb", "MIG-b")]})
    assert (found.index, found.compute_capability) == (2, "8.0")
    assert [(mig.uuid, mig.profile) for mig in found.mig_instances] == [("MIG-a", "1g.5gb"), ("MIG-b", "2g.10gb")]
    assert found.processes == (
        GpuProcess(pid=7, name="python", mig_uuid="MIG-b"),
        GpuProcess(pid=8, name="x", mig_uuid=""),
    )
    assert complete(replace(gpu, processes=None), {}, {}).processes is None


# The first line of /proc/driver/nvidia/version, as public repositories record it.
@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.135  Fri Jan 10 20:00:00 UTC 2025", "550.135"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  "
            "(dvs-builder@U22-I3-B17-02-5)  Tue Sep 23 09:55:41 UTC 2025\n"
            "GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04.2)",
            "580.95.05",
        ),
        ("", ""),
        ("GCC version:  gcc version 11.4.0", ""),
    ],
)
def test_the_loaded_module(line, version):
    assert parse_module_version(line) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05\n", "580.95.05"),
        # cuda-compat may put another libcuda first.
        ("/usr/local/cuda/compat/libcuda.so.590.44.01\n/usr/lib/libnvidia-ml.so.580.95.05\n", "580.95.05"),
        ("/usr/lib/wsl/lib/libcuda.so.1\n/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1.1\n", ""),
        ("", ""),
    ],
)
def test_the_library_on_disk(text, version):
    assert parse_library_version(text) == version


def test_gpus_on_the_bus():
    assert parse_pci("0000:01:00.0 2803 nouveau\n0000:02:00.0 20b2 \ngarbage\n") == (
        PciGpu(address="0000:01:00.0", device_id="2803", driver="nouveau"),
        PciGpu(address="0000:02:00.0", device_id="20b2"),
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:CB:00.0", "0000:cb:00.0"),
        ("0000:cb:00.0", "0000:cb:00.0"),
        ("0001F0A4:01:00.0", "0001f0a4:01:00.0"),
        ("N/A", ""),
    ],
)
def test_pci_addresses_in_the_kernels_spelling(text, address):
    assert pci_address(text) == address
