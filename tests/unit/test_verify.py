"""The pure parts of `kit verify`: what is expected, how it differs, and how outcomes are reported."""

from __future__ import annotations

import ast
from dataclasses import replace
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kit import layout, locks, paths, verify
from kit.catalog import Catalog
from kit.engine import Engine
from kit.engine.podman import Podman
from kit.errors import BadInputError, EngineError, NotReadyError
from kit.network import NetworkSettings
from kit.run.lease import no_gpus
from kit.run.prepare import Ready
from kit.spec.container import fresh_volumes
from kit.verify import expected
from kit.verify.collector import is_chosen, words
from kit.verify.junit import junit
from kit.verify.report import Check, Report
from kit.verify.suite.conftest import read_answer
from kit.verify.suite.test_security import listening

BOOKWORM = {"python_version": "3.11", "python_full_version": "3.11.2", "platform_machine": "x86_64"}


@pytest.fixture
def lock(catalog: Catalog) -> locks.Lock:
    image = catalog.find("torch2.7-cu126")
    return locks.read_lock(paths.images_dir() / image.name, image)


def test_packages_are_those_whose_markers_hold(lock):
    on_311 = expected.packages(lock, BOOKWORM)
    on_313 = expected.packages(lock, {"python_version": "3.13", "python_full_version": "3.13.5"})
    assert on_311["torch"] == on_313["torch"] == "2.7.1"
    assert on_311["numpy"] != on_313["numpy"]


def test_constraints_against_the_lock():
    locked = {"torch": "2.7.1", "nvidia-nccl-cu12": "2.26.2", "sympy": "1.14"}
    assert expected.matching(locked, ("torch", "torchvision", "nvidia-*")) == {
        "torch": "2.7.1",
        "nvidia-nccl-cu12": "2.26.2",
    }
    assert expected.broken(locked, ["torch==2.7.1", "sympy>=1.13,<2", "pandas>=2.2.2"]) == []
    assert expected.broken(locked, ["torch==2.6.0", "Sympy<1.14"]) == ["torch==2.6.0", "Sympy<1.14"]


@pytest.mark.parametrize(
    ("installed", "missing", "besides"),
    [
        ([("Foo.Bar", "1.0"), ("torch", "2.7.1+cu126")], [], []),
        ([("torch", "2.7.1")], ["foo-bar 1.0 is locked, none is there"], []),
        ([("foo_bar", "1.1"), ("torch", "2.7.1")], ["foo-bar 1.0 is locked, 1.1 is there"], []),
        ([("foo_bar", "1.0"), ("torch", "2.7.1"), ("more", "3")], [], ["more 3"]),
        ([("foo_bar", "1.0"), ("foo-bar", "1.0"), ("torch", "2.7.1")], [], ["foo-bar 1.0, a second time"]),
        ([("foo_bar", "not a version"), ("torch", "2.7.1")], ["foo-bar 1.0 is locked, not a version is there"], []),
    ],
)
def test_installed_packages_against_the_lock(installed, missing, besides):
    locked = {"foo-bar": "1.0", "torch": "2.7.1"}
    assert expected.missing(locked, installed) == missing
    assert expected.besides(locked, installed) == besides


def test_a_local_part_counts_where_the_lock_has_one():
    assert expected.is_same_version("2.7.1", "2.7.1+cu126")
    assert expected.is_same_version("2.7.1+cu118", "2.7.1+cu118")
    assert not expected.is_same_version("2.7.1+cu118", "2.7.1+cu126")
    assert not expected.is_same_version("2.7.1", "2.7.2")


def test_cuda_and_cudnn_are_the_locked_wheels(catalog, lock):
    release = catalog.find("torch2.7-cu126").release
    assert expected.locked_version(lock, "cudnn") == "9.5.1.17"
    assert expected.cuda_version(release, lock) == "12.6"
    without = replace(lock, layers=dict.fromkeys(lock.layers, ""))
    assert expected.locked_version(without, "cudnn") == ""
    assert expected.cuda_version(replace(release, cuda="11.8"), without) == "11.8"


def test_versions_as_the_libraries_say_them():
    assert expected.cuda_number("12.6") == 12060
    assert expected.cuda_number("13.0") == 13000
    assert expected.cudnn_number("9.5.1.17") == 90501
    assert expected.cudnn_number("8.9.7.29") == 8907


def test_architectures_are_machine_code_and_ptx_of_the_platform(catalog):
    release = replace(
        catalog.find("torch2.7-cu126").release,
        compute_capabilities=("8.0", "12.0"),
        compute_capabilities_on=(("linux/arm64", ("9.0",)),),
        ptx=("12.0",),
    )
    assert expected.architectures(release, "linux/amd64") == {"sm_80", "sm_120", "compute_120"}
    assert expected.architectures(release, "linux/arm64") == {"sm_90", "compute_120"}


def test_a_library_counts_by_the_name_it_is_loaded_by():
    wheel = "/opt/kit/venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9"
    system = "/usr/lib/x86_64-linux-gnu/libcudnn.so.9.5.1"
    toolkit = "/usr/local/cuda-12.6/lib64/libcudnn.so.9"
    assert expected.copies([wheel], is_devel=False) == {}
    assert expected.copies([wheel, system], is_devel=False) == {"libcudnn": [wheel, system]}
    assert expected.copies([wheel, toolkit], is_devel=False) == {"libcudnn": [wheel, toolkit]}
    assert expected.copies([wheel, toolkit], is_devel=True) == {}


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("HF_TOKEN", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("DB_PASSWORD", "x", True),
        ("PIP_INDEX_URL", "https://me:x@example.org/simple", True),
        ("HF_TOKEN", "", False),
        ("PIP_INDEX_URL", "https://example.org/simple", False),
        ("MONKEY", "x", False),
        ("KEYBOARD", "x", False),
    ],
)
def test_variables_that_hold_secrets(name, value, is_secret):
    assert expected.secret_variables({name: value}) == ([name] if is_secret else [])


def test_variables_of_an_image():
    assert expected.variables({"Env": ["A=b=c", "EMPTY="]}) == {"A": "b=c", "EMPTY": ""}
    assert expected.variables({"Env": None}) == {}


def test_listening_ports_are_read_from_the_kernel_s_table():
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1\n"
        "   1: 0100007F:22B8 0100007F:D4D2 01 00000000:00000000 00:00000000 00000000  1000        0 2 1\n"
        "   2: 0B00007F:B3D3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1\n"
        "   0: 00000000000000000000000000000000:270F 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 3 1\n"
    )
    assert listening(table) == [8888, 9999]


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "problem"),
    [
        (0, 'noise\n\n{"a": {"value": 1, "error": ""}}\n', "", ""),
        (124, "", "", "no answer after 9 s"),
        (137, "", "", "no answer after 9 s"),
        (135, "", "Bus error (core dumped)\n", "ended with exit code 135: Bus error (core dumped)"),
        (1, "", "", "ended with exit code 1"),
    ],
)
def test_answers_of_scripts(code, stdout, stderr, problem):
    answer = read_answer("x.py", code, stdout, stderr, 9)
    assert answer.problem == problem
    if problem:
        with pytest.raises(pytest.fail.Exception, match=r"x\.py: "):
            answer.value("a")
    else:
        assert answer.value("a") == 1


def test_a_part_that_is_absent_is_not_run_and_one_that_failed_fails():
    parts = {
        "absent": {"value": None, "error": "", "absent": "one GPU is here"},
        "failed": {"value": None, "error": "ValueError: 3", "where": "x.py:1"},
    }
    answer = replace(read_answer("x.py", 0, "{}", "", 9), parts=parts)
    with pytest.raises(pytest.skip.Exception, match="one GPU is here"):
        answer.value("absent")
    with pytest.raises(pytest.fail.Exception, match="ValueError: 3"):
        answer.value("failed")


def test_checks_are_chosen_by_name_or_group():
    assert is_chosen("gpu.kernel[float32]", ("gpu",))
    assert is_chosen("gpu.kernel[float32]", ("gpu.kernel",))
    assert is_chosen("gpu.kernel[float32]", ("gpu.kernel[float32]",))
    assert not is_chosen("gpu.kernel[float32]", ("gpu.kern",))
    assert not is_chosen("packages.locked", ("pack", "gpu"))


def test_what_a_failed_check_says():
    assert words(AssertionError("3 copies")) == "3 copies"
    assert words(AssertionError()) == "AssertionError:"
    assert words(KeyError("x")) == "KeyError: 'x'"
    assert words(NotReadyError("no answer", details=("a", "b"))) == "no answer; a; b"


def test_every_group_has_its_file_and_every_file_its_group():
    folder = Path(str(resources.files("kit.verify.suite")))
    assert {file.stem for file in folder.glob("test_*.py")} == {
        f"test_{group}" for group in (*verify.GROUPS, verify.OWN_GROUP)
    }


def test_every_check_says_in_a_sentence_what_it_proves():
    folder = Path(str(resources.files("kit.verify.suite")))
    for file in folder.glob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{file.name}: {node.name}"


def test_names_of_all_checks():
    names = verify.names()
    assert len(names) == len(set(names)) > 40
    assert {"packages.locked", "gpu.kernel[float8_e4m3fn]", "security.world-writable"} <= set(names)


@pytest.fixture
def ready(catalog: Catalog, engine: Engine) -> Ready:
    image = catalog.find("tf-cpu")
    network = NetworkSettings(proxies={})
    return Ready(catalog=catalog, image=image, engine=engine, network=network, gpus=no_gpus(image))


def test_a_check_that_does_not_exist_is_refused_before_anything_starts(ready, fake_docker):
    with pytest.raises(BadInputError, match="nonsense") as refused:
        verify.verify(ready, only=("packages", "nonsense"))
    assert "packages, framework" in refused.value.hint
    assert fake_docker.calls == []


def test_an_image_that_the_engine_does_not_have(ready, fake_docker):
    fake_docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    with pytest.raises(EngineError, match="kit/tf-cpu:latest") as error:
        verify.verify(ready)
    assert error.value.hint == "`kit build tf-cpu` builds it"


def test_scripts_for_inside_are_of_python_3_8_and_need_nothing_of_kit():
    inside = Path(str(resources.files("kit.verify.suite"))) / "inside"
    files = [*inside.glob("*.py"), Path(str(resources.files("kit.run.gpu_check"))) / "driver.py"]
    assert len(files) >= 8
    for file in files:
        tree = ast.parse(file.read_text(), feature_version=(3, 8))
        imported = {
            name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not any(name.split(".")[0] == "kit" for name in imported), file.name


def test_volumes_are_fresh_but_for_the_cuda_cache():
    volumes = {mount.target: mount.source for mount in fresh_volumes("1234")}
    assert set(volumes) == {layout.CUDA_CACHE, *(volume.path for volume in layout.VOLUMES)}
    assert {source for source in volumes.values() if source} == {"kit-1234-cuda"}
    assert volumes["/home/kit/.cache/cuda"] == "kit-1234-cuda"


def test_root_verifies_as_the_image_s_own_user(monkeypatch):
    of_root = Path("/dev/null")  # stands for the engine's socket; one of root's is asked nothing
    monkeypatch.setattr("kit.run.containers.caller", lambda: "0:0")
    assert verify._user(Engine(socket_path=of_root)) == "1000:1000"
    monkeypatch.setattr("kit.run.containers.caller", lambda: "1234:5678")
    assert verify._user(Engine(socket_path=of_root)) == "1234:5678"


def test_with_a_rootless_engine_the_caller_is_root_inside(monkeypatch):
    monkeypatch.setattr("kit.run.containers.caller", lambda: "1000:1000")
    monkeypatch.setattr(Podman, "is_rootless", True)
    assert verify._user(Podman()) == "0:0"
    monkeypatch.setattr(Podman, "is_rootless", False)
    assert verify._user(Podman()) == "1000:1000"


def test_home_folders_that_anyone_may_write_to_are_those_of_the_layout():
    from kit.verify.suite.test_security import OPEN_FOLDERS

    assert {f"{folder}/" for folder in layout.HOME_DIRS} < OPEN_FOLDERS


REPORT = Report(
    image="tf-cpu",
    reference="kit/tf-cpu:latest",
    checks=(
        Check(name="packages.locked", outcome="passed", detail="140 packages", seconds=1.25),
        Check(name="image.labels", outcome="failed", detail="a <b>\nsecond\x1b[0m", seconds=0.5),
        Check(name="gpu.kernel[float32]", outcome="not_run", detail="no GPU"),
    ),
)


def test_junit_has_each_outcome_and_is_well_formed_whatever_was_printed():
    suite = ElementTree.fromstring(junit(REPORT))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    locked, labels, kernel = list(suite)
    assert (locked.get("classname"), locked.get("name"), locked.get("time")) == ("tf-cpu.packages", "locked", "1.250")
    failure = labels.find("failure")
    assert failure is not None
    assert failure.get("message") == "a <b>"
    assert failure.text == "a <b>\nsecond?[0m"
    skipped = kernel.find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no GPU"
    assert kernel.find("failure") is None
