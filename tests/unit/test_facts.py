"""What engines say of GPUs, completed by the CDI specifications that they read, as one answer."""

import json

import pytest

from kit.engine import Engine, cdi
from kit.facts.engine import FEATURES, EngineFacts
from tests.unit.test_host_engine import SPEC as YAML

DEVICES = ("nvidia.com/gpu=0", "nvidia.com/gpu=all")


@pytest.mark.parametrize(
    ("facts", "form"),
    [
        (EngineFacts(), None),
        (EngineFacts(program="docker", runtimes=("runc",)), None),
        (EngineFacts(program="docker", runtimes=("nvidia", "runc")), "runtime"),
        (EngineFacts(program="docker", runtimes=("nvidia",), cdi_devices=DEVICES), "cdi"),
        (EngineFacts(program="docker", cdi_devices=("amd.com/gpu=0", "nvidia.com/gpus=0")), None),
        (EngineFacts(program="podman", runtimes=("nvidia",)), None),
        (EngineFacts(program="podman", cdi_devices=DEVICES), "cdi"),
    ],
)
def test_how_an_engine_passes_gpus(facts, form):
    assert facts.gpu_form == form


@pytest.mark.parametrize(
    ("facts", "devices"),
    [
        (EngineFacts(program="podman"), DEVICES),
        (EngineFacts(program="docker", cdi_spec_dirs=("/etc/cdi",)), DEVICES),
        (EngineFacts(program="docker"), ()),  # CDI is off
        (EngineFacts(program="docker", cdi_spec_dirs=("/etc/cdi",), lists_cdi=True, cdi_devices=("x",)), ("x",)),
    ],
)
def test_specifications_count_where_the_engine_reads_them_and_lists_no_device(facts, devices):
    assert facts.with_cdi(DEVICES).cdi_devices == devices


def test_every_kind_of_engine_has_its_features():
    assert {name: features.title for name, features in FEATURES.items()} == {"docker": "Docker", "podman": "Podman"}
    assert EngineFacts().features == FEATURES["docker"]


# -- specifications


def test_devices_are_read_from_the_specifications_of_folders(tmp_path):
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "mig0:1", "containerEdits": {}}]}
    (tmp_path / "a.json").write_text(json.dumps(document, separators=(",", ":")))
    (tmp_path / "b.json").write_text(json.dumps(document, indent=2).replace("mig0:1", "1"))
    (tmp_path / "nvidia.yaml").write_text(YAML)
    found = cdi.devices_of((str(tmp_path), "/no/such/folder"))
    assert found == ("nvidia.com/gpu=mig0:1", "nvidia.com/gpu=1", *DEVICES)


def test_files_that_are_no_specification_of_gpus_count_for_nothing(tmp_path):
    (tmp_path / "other.yaml").write_text(YAML.replace("nvidia.com/gpu", "nvidia.com/gpus"))
    (tmp_path / "notes.txt").write_text(YAML)
    (tmp_path / "binary.json").write_bytes(b"\xff\x00")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    assert cdi.devices_of((str(tmp_path),)) == ()


def test_an_engines_facts_have_the_devices_it_does_not_list(fake_docker, tmp_path):
    (tmp_path / "nvidia.yaml").write_text(YAML)
    raw = {"ServerVersion": "27.5.1", "CDISpecDirs": [str(tmp_path)], "Runtimes": {"nvidia": {}}}
    fake_docker.reply("info", stdout=json.dumps(raw))
    engine = Engine(program=str(fake_docker.program))
    assert (engine.info.cdi_devices, engine.info.gpu_form) == (DEVICES, "cdi")
    assert len(fake_docker.called("info")) == 1


def test_specifications_of_another_machine_are_told_apart(tmp_path):
    """A device of somebody else's specification is not one of NVIDIA's because it is printed after one."""
    import subprocess

    class Connection:
        def run(self, script, *, arguments, check):
            return subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, check=check)

    (tmp_path / "nvidia.yaml").write_text(YAML)
    (tmp_path / "other.yaml").write_text("kind: vendor.example/net\ndevices:\n- name: eth0\n")
    assert cdi.devices_of((str(tmp_path), "/no/such/folder"), Connection()) == DEVICES
