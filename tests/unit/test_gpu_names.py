"""Which GPU a name means: NVIDIA's own lists whole, what people write, and names that are made and not listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.catalog import load_catalog
from kit.catalog.devices import names_of, parse_pci_ids, parse_readme, read_devices, table
from kit.decide import compat
from kit.decide.compat.gpu_names import board_of, capability_of_device, is_jetson, memory_of_device, named, nearest
from kit.errors import BadInputError, CatalogError
from kit.facts.host import HostGpu

CATALOG = load_catalog()
DATA = Path(__file__).parent / "data" / "gpus"


def rows(name: str) -> list[tuple[str, str]]:
    lines = (DATA / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [(line.split("\t")[0], line.split("\t")[1]) for line in lines if not line.startswith("#")]


def test_every_name_of_the_drivers_readme_means_the_chip_of_its_device() -> None:
    found = {name: named(CATALOG, name).capabilities for name, _ in rows("readme")}
    assert len(found) == 222
    assert found == {name: (capability_of_device(CATALOG, device),) for name, device in rows("readme")}
    assert "" not in {capability for (capability,) in found.values()}


def test_every_name_of_nvidias_lists_has_its_compute_capability() -> None:
    assert len(rows("cuda_gpus")) == 129
    wrong = {name: named(CATALOG, name).capabilities for name, c in rows("cuda_gpus") if compat_of(name) != (c,)}
    assert wrong == {}


def compat_of(name: str) -> tuple[str, ...]:
    return named(CATALOG, name).capabilities


def test_older_lists_differ_where_they_are_known_to() -> None:
    """Names of old cards are undecided or unknown rather than wrong; below 3.0 no image has code anyway."""
    differ = {
        name: (capability, compat_of(name))
        for name, capability in rows("cuda_gpus_2025")
        if compat_of(name) and capability not in compat_of(name) and float(capability) >= 2.0
    }
    # GM107, as the Quadro K2200 of the same list, which has 5.0.
    assert differ == {"Quadro K2200M": ("3.0", ("5.0",))}
    assert sum(compat_of(name) == (capability,) for name, capability in rows("cuda_gpus_2025")) >= 260


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("RTX4090", "8.9"),
        ("4090 D", "8.9"),
        ("4090D", "8.9"),
        ("2080ti", "7.5"),
        ("gtx1080ti", "6.1"),
        ("3060 laptop", "8.6"),
        ("RTX 3060 12GB", "8.6"),
        ("RTX 4090 24G", "8.9"),
        ("NVIDIA GeForce RTX™ 4060", "8.9"),
        ("RTX-3080", "8.6"),
        ("1660s", "7.5"),
        ("4070 tis", "8.9"),
        ("RTX 6000 Ada", "8.9"),
        ("rtx 6000 blackwell", "12.0"),
        ("A6000", "8.6"),
        ("a100 40gb", "8.0"),
        ("H100 SXM", "9.0"),
        ("V100 32GB", "7.0"),
        ("K40", "3.5"),
        ("P40", "6.1"),
        ("T4", "7.5"),
        ("5090", "12.0"),
        ("GTX 960", "5.2"),
        ("960m", "5.0"),
        ("Quadro 4000", "2.0"),
        ("NVIDIA TITAN X", "6.1"),
        ("GeForce GTX TITAN X", "5.2"),
        ("MX150", "6.1"),
        ("dgx spark", "12.1"),
        ("HGX H100", "9.0"),
        ("GB200 NVL72", "10.0"),
        ("RTX 4060 笔记本", "8.9"),
        # made names
        ("GRID T4-16Q", "7.5"),
        ("NVIDIA A10-24Q", "8.6"),
        ("GRID V100DX-32C", "7.0"),
        ("NVIDIA A100-1-5C", "8.0"),
        ("NVIDIA A40-2B4", "8.6"),
        ("GRID RTX6000-8Q", "7.5"),
        ("NVIDIA RTX6000-Ada-48Q", "8.9"),
        ("NVIDIA RTXA6000-48Q", "8.6"),
        ("NVIDIA L40S-48Q", "8.9"),
        ("NVIDIA H100XM-80C", "9.0"),
        ("NVIDIA B200X-180C", "10.0"),
        ("NVIDIA RTX Pro 6000 Blackwell DC-4-96Q", "12.0"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0"),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "9.0"),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", "8.9"),
        ("NVIDIA GeForce GTX 1660 Ti with Max-Q Design", "7.5"),
        # an Ada chip under a name of the Ampere series
        ("NVIDIA GeForce RTX 3050 A Laptop GPU", "8.9"),
        ("NVIDIA GeForce RTX 2050", "8.6"),
        # Jetsons
        ("Orin (nvgpu)", "8.7"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "8.7"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "7.2"),
        ("NVIDIA Tegra X1", "5.3"),
        ("NVIDIA Jetson Nano Developer Kit", "5.3"),
        ("NVIDIA Thor", "11.0"),
    ],
)
def test_names_as_people_and_drivers_write_them(text: str, capability: str) -> None:
    assert named(CATALOG, text).capabilities == (capability,)
    assert compat.gpu_by_name(CATALOG, text)[1] == capability


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("RTX 6000", ("7.5", "8.9", "12.0")),
        ("RTX6000", ("7.5", "8.9", "12.0")),
        ("NVIDIA RTX 4000", ("7.5", "8.9", "12.0")),
        ("RTX 5000", ("7.5", "8.9", "12.0")),
        ("RTX 2000", ("8.9", "12.0")),
        ("titan x", ("5.2", "6.1")),
        ("GT 730", ("2.1", "3.0", "3.5")),
        ("GTX 860M", ("3.0", "5.0")),
        # before 2016 the laptop's card had an M, and may have had another chip
        ("GTX 960 laptop", ("5.0", "5.2")),
    ],
)
def test_a_short_name_of_several_gpus_is_asked_back(text: str, among: tuple[str, ...]) -> None:
    assert named(CATALOG, text).capabilities == among
    with pytest.raises(BadInputError, match="several GPUs are called that") as raised:
        compat.gpu_by_name(CATALOG, text)
    for capability in among:
        assert f"({capability})" in raised.value.message
    assert "10de:" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "RTX", "10", "RX 7900 XTX", "Radeon", "RTX 6090", "Graphics Device", "a", "-", "sm_", "8,9", "é", "RTX 9999"],
)
def test_what_is_no_name_of_a_gpu_is_not_decided(text: str) -> None:
    assert len(named(CATALOG, text).capabilities) != 1
    with pytest.raises(BadInputError, match="--gpu"):
        compat.gpu_by_name(CATALOG, text)


@pytest.mark.parametrize(
    ("text", "family"),
    [("RTX 4095", "RTX 40"), ("GTX 1085", "GTX 10"), ("H150", "H"), ("RTX A6500", "RTX A"), ("RTX 2075", "RTX 20")],
)
def test_the_nearest_name_is_of_the_same_family(text: str, family: str) -> None:
    near = nearest(CATALOG, text)
    assert near
    assert all(re.search(rf"\b{family}\d", name) for name in near), near


def test_a_gpu_by_its_pci_id() -> None:
    assert compat.gpu_by_name(CATALOG, "10de:2684") == ("NVIDIA GeForce RTX 4090", "8.9")
    assert compat.gpu_by_name(CATALOG, "1C81") == ("GeForce GTX 1050", "6.1")
    # The name says two chips, the device one.
    assert compat.capability_of(CATALOG, HostGpu(name="GeForce GTX 860M", device_id="1392")) == "5.0"
    assert compat.capability_of(CATALOG, HostGpu(name="GeForce GTX 860M", device_id="119a")) == "3.0"
    assert compat.capability_of(CATALOG, HostGpu(name="GeForce GTX 860M")) == ""
    assert (memory_of_device(CATALOG, "20b0"), memory_of_device(CATALOG, "2e12")) == ("HBM", "shared")
    assert (capability_of_device(CATALOG, "ffff"), memory_of_device(CATALOG, "ffff")) == ("", "")


def test_the_driver_s_word_goes_before_any_table() -> None:
    assert (
        compat.capability_of(CATALOG, HostGpu(name="GeForce RTX 4090", device_id="2684", compute_capability="9.9"))
        == "9.9"
    )


def test_vgpus_and_jetsons_are_known_as_such() -> None:
    assert board_of("GRID V100DX-32C") == "V100DX"
    assert board_of("NVIDIA A100-1-5C") == "A100"
    for name, _ in rows("readme"):
        assert board_of(name) == "", name
        assert not is_jetson(CATALOG, name), name
    assert is_jetson(CATALOG, "NVIDIA Jetson AGX Xavier")
    assert not is_jetson(CATALOG, "NVIDIA Thor"), "it takes the wheels for servers"


def test_every_chip_is_known_or_named_as_unknown() -> None:
    known = {name for row in CATALOG.chips for name in row.names}
    assert {device.chip for device in CATALOG.devices} - known == {"GB112", "GB120", "GR100", "GR102"}
    assert {row.compute_capability for row in CATALOG.chips} <= {a.compute_capability for a in CATALOG.architectures}


def test_cards_with_rates_agree_with_the_chips() -> None:
    for gpu in CATALOG.gpus:
        for name in gpu.names:
            assert named(CATALOG, name).capabilities == (gpu.compute_capability,), name


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_decided_asked_back_or_unknown(text: str) -> None:
    found = named(CATALOG, text)
    assert len(set(found.capabilities)) == len(found.capabilities)
    assert {capability for _, capability in found.names} == set(found.capabilities)
    assert isinstance(nearest(CATALOG, text), list)


@pytest.mark.parametrize(
    "text", ["a" * 20000, "-1a" * 4000, "4090 " * 3000, "1" * 5000, "a1-1a-1a-1a-1a-1a-1a", "\n4090\n"]
)
def test_a_text_of_any_length_is_read_at_once(text: str) -> None:
    named(CATALOG, text)
    assert nearest(CATALOG, text) is not None


@given(st.sampled_from([name for name, _ in rows("readme")]), st.sampled_from([str.upper, str.lower, str.title]))
@settings(max_examples=200, deadline=None)
def test_capital_letters_and_nvidia_do_not_matter(name: str, change: object) -> None:
    assert callable(change)
    exact = named(CATALOG, name).capabilities
    assert named(CATALOG, change(name)).capabilities == exact
    assert exact[0] in named(CATALOG, name.removeprefix("NVIDIA ")).capabilities


# How the table of devices is made.

PCI_IDS = """# Version: 2026.08.22
10dd  Another maker
\t2684  AD102 [not ours]
10de  NVIDIA Corporation
\t0fc9  GK107 High Definition Audio Controller
\t1c8c  GP107M [GeForce GTX 1050 Ti Max-Q / Mobile]
\t\t1028 0000  A laptop of somebody's
\t1290  GK208M [GeForce GT 730M]
\t12b9  GK208BGLM [Quadro K610M]
\t1e30  TU102GL [Quadro RTX 6000/8000]
\t2e12  GB20B [GB10]
\t22a3  GH100 [H100 NVSwitch]
\t2901  GB100
10df  Emulex Corporation
"""
README = """version 595.45.04.

| Product Name | PCI ID |
| --- | --- |
| NVIDIA Quadro RTX 6000   | 1E30                |
| Quadro RTX 8000          | 1E30 1028 129E      |
"""


def test_the_table_of_devices_is_made_of_both_sources() -> None:
    lines = table(PCI_IDS, README, "here").splitlines()
    assert lines[2:] == [
        "1290\tGK208\tGeForce GT 730M",
        "12b9\tGK208\tQuadro K610M",
        "1c8c\tGP107\tGeForce GTX 1050 Ti Max-Q|GeForce GTX 1050 Ti Mobile",
        "1e30\tTU102\tNVIDIA Quadro RTX 6000|Quadro RTX 8000",
        "2901\tGB100\t",
        "2e12\tGB20B\tGB10",
    ]
    assert list(parse_readme(README)) == [("1e30", "NVIDIA Quadro RTX 6000"), ("1e30", "Quadro RTX 8000")]
    assert [device for device, _, _ in parse_pci_ids(PCI_IDS)] == ["1c8c", "1290", "12b9", "1e30", "2e12", "2901"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Tesla C2050 / C2070", ["Tesla C2050", "Tesla C2070"]),
        ("GeForce GT 620M/630M/640M LE", ["GeForce GT 620M", "GeForce GT 630M", "GeForce GT 640M LE"]),
        ("GeForce 610M/710M / GT 620M/720M", ["GeForce 610M", "GeForce 710M", "GeForce GT 620M", "GeForce GT 720M"]),
        ("GeForce RTX 2070 Mobile / Max-Q Refresh", ["GeForce RTX 2070 Mobile", "GeForce RTX 2070 Max-Q Refresh"]),
        ("GeForce RTX 3080 11GB / 12GB Engineering Sample", ["GeForce RTX 3080 11GB"]),
        ("Quadro P2000 Mobile / DRIVE PX 2 AutoChauffeur", ["Quadro P2000 Mobile", "DRIVE PX 2 AutoChauffeur"]),
    ],
)
def test_several_names_in_one(text: str, names: list[str]) -> None:
    assert names_of(text) == names


def test_a_damaged_table_of_devices_is_an_error(tmp_path: Path) -> None:
    assert read_devices(tmp_path) == ()
    (tmp_path / "devices.tsv").write_text("# a comment\n2684\tAD102\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="three columns"):
        read_devices(tmp_path)
