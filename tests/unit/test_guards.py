"""What no resolver sees: of a solve, from locks alone; and of what is installed, in small environments of fake packages
in which one guard has something to say.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from kit import paths
from kit.catalog import Catalog
from kit.environment import guards
from kit.environment.format import EnvironmentLock, Package
from kit.environment.guards import Finding, after_solve, arguments, cuda_major, sentences_of
from kit.locks.format import read_lock

PROGRAM = paths.templates_dir() / guards.PROGRAM
MODULE = f".{sysconfig.get_config_var('SOABI')}.so"
OLD_NUMPY = b"numpy.core._multiarray_umath"
NEW_NUMPY = b"numpy._core._multiarray_umath"


def elf(*needed: str, module: str = "", runpath: str = "", text: bytes = b"", machine: int | None = None) -> bytes:
    """A shared object as the loader reads it, of the machine that runs this; with `module`, one of Python's."""
    with Path(os.path.realpath(sys.executable)).open("rb") as file:
        header = file.read(20)
    assert header[4:6] == b"\x02\x01", "64 bits, little-endian"
    names, places = b"\0", {}
    for name in (*needed, runpath, f"PyInit_{module}" if module else ""):
        if name and name not in places:
            places[name] = len(names)
            names += name.encode() + b"\0"
    start = 64 + 2 * 56
    entries = [(1, places[name]) for name in needed]
    entries += [(29, places[runpath])] if runpath else []
    length = 16 * (len(entries) + 3)
    entries += [(5, start + length), (10, len(names)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    size = start + length + len(names)
    kind = struct.unpack_from("<H", header, 18)[0] if machine is None else machine
    return (
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        + struct.pack("<HHIQQQIHHHHHH", 3, kind, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
        + struct.pack("<IIQQQQQQ", 2, 4, start, start, start, length, length, 8)
        + dynamic
        + names
        + text
    )


class Environment:
    """A virtual environment of fake packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        self.python = folder / "bin" / "python"
        self.python.symlink_to(os.path.realpath(sys.executable))
        (folder / "pyvenv.cfg").write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}\n")
        self.site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        self.site.mkdir(parents=True)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()

    def install(
        self, name: str, files: dict[str, bytes], *, version: str = "1.0", requires: tuple[str, ...] = ()
    ) -> None:
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        record = [f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]
        for path, content in files.items():
            (self.site / path).parent.mkdir(parents=True, exist_ok=True)
            (self.site / path).write_bytes(content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record.append(f"{path},sha256={digest},{len(content)}")
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {required}\n" for required in requires)
            + "\nRequires-Dist: not-this\n"
        )
        (info / "RECORD").write_text("\n".join(record) + "\n")

    def run(self, *arguments: str, program: Path = PROGRAM) -> tuple[int, list[dict[str, Any]], list[str]]:
        """The exit code, what was found, and the lines on stderr."""
        done = subprocess.run(
            [self.python, "-I", program, *arguments],
            env={**os.environ, "TMPDIR": str(self.temporary)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr.splitlines()


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


def named(env: Environment, *arguments: str) -> list[tuple[str, str, bool]]:
    """What is found, in short; the exit code and what is on stderr fit it."""
    code, found, lines = env.run(*arguments)
    assert code == int(any(finding["stops"] for finding in found))
    assert [json.loads(line.removeprefix("kit-guard: ")) for line in lines] == found
    return [(finding["guard"], finding["package"], finding["stops"]) for finding in found]


def test_packages_without_fault(env: Environment) -> None:
    env.install("lib", {"lib/__init__.py": b"", "lib/libx.so.1": elf("libc.so.6")})
    env.install("good", {f"good/_c{MODULE}": elf("libx.so.1", module="_c"), "good/__init__.py": b""}, requires=("lib",))
    assert named(env, "good", "lib", "not-for-this-python") == []
    assert named(env, "--all") == []
    assert named(env) == []
    assert not list(env.temporary.iterdir())
    assert not list(env.site.rglob("__pycache__"))


def test_the_program_runs_on_the_oldest_python_of_an_image() -> None:
    ast.parse(PROGRAM.read_text(encoding="utf-8"), feature_version=(3, 8))


# --- owners


def test_two_packages_that_write_one_file(env: Environment) -> None:
    env.install("headless", {"cv2/__init__.py": b"1", "cv2/data.xml": b"same"})
    env.install("windows", {"cv2/__init__.py": b"2", "cv2/data.xml": b"same"})
    code, found, _ = env.run("windows")
    assert code == 1
    assert found == [
        {
            "guard": "owners",
            "package": "windows",
            "other": "headless",
            "file": "cv2/__init__.py",
            "count": 1,
            "stops": True,
        }
    ]
    assert named(env, "--share=headless,windows", "windows") == []
    assert named(env, "not-there") == [], "it is between two of the image"


@pytest.mark.parametrize(
    "path", ["tests/__init__.py", "tests/test_x.py", "LICENSE", "README.md", "docs/conf.py", "setup.py"]
)
def test_what_lies_beside_packages_by_mistake_is_nobodys(env: Environment, path: str) -> None:
    env.install("one", {path: b"1"})
    env.install("two", {path: b"2"})
    assert named(env, "--all") == []


def test_a_namespace_has_many_owners(env: Environment) -> None:
    env.install("one", {"google/__init__.py": b"__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"})
    env.install("two", {"google/__init__.py": b"__import__('pkg_resources').declare_namespace(__name__)\n"})
    assert named(env, "--all") == []
    env.install("three", {"google/__init__.py": b"'''A package of its own.'''\n"})
    assert {guard for guard, _, _ in named(env, "--all")} == {"owners"}


def test_a_program_that_two_bring_is_a_warning(env: Environment) -> None:
    env.install("one", {"../../../bin/tool": b"1"})
    env.install("two", {"../../../bin/tool": b"2"})
    assert named(env, "two") == [("owners", "two", False)]


# --- libraries


def test_a_library_that_is_nowhere(env: Environment) -> None:
    env.install("broken", {f"broken/_c{MODULE}": elf("libc.so.6", "libnowhere.so.3", module="_c")})
    code, found, _ = env.run("broken")
    assert code == 1
    file = f"broken/_c{MODULE}"
    assert found == [
        {
            "guard": "libraries",
            "package": "broken",
            "library": "libnowhere.so.3",
            "file": file,
            "count": 1,
            "stops": True,
        }
    ]
    assert named(env, "--optional=broken:broken/_c.*", "broken") == []


def test_a_library_that_a_bundled_one_needs(env: Environment) -> None:
    env.install(
        "broken",
        {
            f"broken/_c{MODULE}": elf("libbundled-1.so", module="_c", runpath="$ORIGIN/libs"),
            "broken/libs/libbundled-1.so": elf("libnowhere.so.3"),
        },
    )
    code, [finding], _ = env.run("broken")
    assert (code, finding["library"], finding["file"]) == (1, "libnowhere.so.3", "broken/libs/libbundled-1.so")


@pytest.mark.parametrize("library", ["libcuda.so.1", "libnvidia-ml.so.1", "libnvcuvid.so.1", "libc.so.6"])
def test_what_the_driver_and_the_system_have(env: Environment, library: str) -> None:
    env.install("good", {f"good/_c{MODULE}": elf(library, module="_c")})
    assert named(env, "good") == []


def test_a_library_of_a_package_that_is_not_required_is_found_in_the_image_alone(env: Environment) -> None:
    env.install("torch", {"torch/lib/libtorch.so": elf()})
    env.install("ops", {f"ops/_c{MODULE}": elf("libtorch.so", module="_c")})
    assert named(env, "ops") == []
    assert named(env, "ops", "torch") == [("libraries", "ops", True)]


def test_of_several_variants_one_is_loaded(env: Environment) -> None:
    files = {f"bits/lib_cuda{n}{MODULE}": elf(f"libcudart.so.{n}", module=f"lib_cuda{n}") for n in (11, 13)}
    env.install("bits", {**files, f"bits/lib_cuda12{MODULE}": elf("libc.so.6", module="lib_cuda12")})
    env.install("cuda", {"nvidia/libcudart.so.12": elf()})
    assert named(env, "bits") == []


def test_a_plug_in_that_nobody_asks_for(env: Environment) -> None:
    env.install(
        "qt", {"qt/plugins/libodbc_driver.so": elf("libodbc.so.2"), f"qt/_c{MODULE}": elf("libc.so.6", module="_c")}
    )
    assert named(env, "qt") == []


def test_where_other_modules_are_whole_it_is_a_warning(env: Environment) -> None:
    env.install(
        "pool",
        {f"pool/_c{MODULE}": elf(module="_c"), f"pool/tbb{MODULE}": elf("libnowhere.so.12", module="tbb")},
    )
    assert named(env, "pool") == [("libraries", "pool", False)]
    # The import needs it after all.
    (env.site / "pool" / "__init__.py").write_text(
        "raise ImportError('libnowhere.so.12: cannot open shared object file: No such file or directory')"
    )
    record = next(env.site.glob("pool-*/RECORD"))
    record.write_text(record.read_text() + "pool/__init__.py,,\n")
    assert named(env, "pool") == [("libraries", "pool", True)]


def test_a_library_that_only_an_import_finds_missing(env: Environment) -> None:
    text = b"import ctypes\nctypes.CDLL('libnowhere.so.7')"
    env.install("boost", {"boost/__init__.py": text, "boost/lib/libboost.so": elf("libnowhere.so.7")})
    code, [finding], _ = env.run("boost")
    assert (code, finding["guard"], finding["library"]) == (1, "libraries", "libnowhere.so.7")


@pytest.mark.parametrize(
    "content",
    [
        elf("libnowhere.so.3", module="_c", machine=40 if os.uname().machine != "armv7l" else 62),
        elf("libc.musl-x86_64.so.1", "libnowhere.so.3", module="_c"),
        elf("libnowhere.so.3", module="_c")[:150],
        b"\x7fELF",
        b"INPUT(libc.so.6)\n",
    ],
    ids=["another machine", "another C library", "damaged", "cut off", "a linker script"],
)
def test_what_is_no_shared_object_here(env: Environment, content: bytes) -> None:
    env.install("odd", {f"odd/_c{MODULE}": content})
    assert named(env, "odd") == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_what_a_compiler_makes(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text("int x(void) { return 1; }")
    (tmp_path / "m.c").write_text("extern int x(void);\nint PyInit__m(void) { return x(); }")
    folder = env.site / "made"
    folder.mkdir()
    for command in (
        ["gcc", "-shared", "-o", folder / "libmade.so.2", "-Wl,-soname,libmade.so.2", "x.c"],
        ["gcc", "-shared", "-o", folder / f"_m{MODULE}", "m.c", folder / "libmade.so.2", "-Wl,-rpath,$ORIGIN"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    files = {f"made/{path.name}": path.read_bytes() for path in folder.iterdir()}
    env.install("made", files)
    assert named(env, "made") == []
    (folder / "libmade.so.2").rename(folder / "gone")
    record = next(env.site.glob("made-*/RECORD"))
    record.write_text("".join(line for line in record.open() if "libmade" not in line))
    assert named(env, "made") == [("libraries", "made", True)]


# --- NumPy


@pytest.mark.parametrize(
    ("numpy", "texts", "found"),
    [
        ("2.4.6", OLD_NUMPY, [("numpy", "old", True)]),
        ("2.4.6", OLD_NUMPY + b"\0" + NEW_NUMPY, []),
        ("1.26.4", OLD_NUMPY, []),
    ],
)
def test_a_module_for_another_numpy(env: Environment, numpy: str, texts: bytes, found: list[Any]) -> None:
    env.install("numpy", {"numpy/__init__.py": b""}, version=numpy)
    env.install("old", {f"old/_c{MODULE}": elf(module="_c", text=texts)})
    assert named(env, "old") == found


def test_what_numpy_prints_names_the_package_whose_module_it_is(env: Environment) -> None:
    env.install("numpy", {"numpy/__init__.py": b""}, version="2.4.6")
    # As a package does that catches the error; the module that is wrong is another package's.
    text = (
        "import os, sys\n"
        "here = os.path.dirname(os.path.dirname(__file__))\n"
        "print(f'  File \"{here}/inner/core.py\", line 3\\nA module that was compiled using NumPy 1.x cannot be run',"
        " file=sys.stderr)\n"
    )
    env.install("inner", {"inner/core.py": b""})
    env.install("outer", {"outer/__init__.py": text.encode(), f"outer/_c{MODULE}": elf(module="_c")})
    assert named(env, "inner", "outer") == [("numpy", "inner", True)]


# --- CUDA


def test_a_second_cuda_major(env: Environment) -> None:
    env.install("nvidia-cuda-runtime-cu12", {"nvidia/cuda_runtime/lib/libcudart.so.12": b"12"})
    env.install("nvidia-cuda-runtime", {"nvidia/cu13/lib/libcudart.so.13": b"13"})
    code, found, _ = env.run("nvidia-cuda-runtime")
    assert (code, len(found)) == (1, 1)
    assert (found[0]["guard"], found[0]["brings"], found[0]["image"]) == ("cuda", 13, 12)


def test_a_copy_of_cuda_under_a_name_of_its_own_is_a_warning(env: Environment) -> None:
    env.install("nvidia-cuda-runtime-cu12", {"nvidia/cuda_runtime/lib/libcudart.so.12": b"12"})
    env.install("video", {"video.libs/libcudart-d0da41ae.so.11.0": b"11"})
    assert named(env, "video") == [("cuda", "video", False)]


def test_a_package_for_another_cuda_major(env: Environment) -> None:
    env.install("cuda", {"nvidia/cuda_runtime/lib/libcudart.so.98": b"98"})
    env.install("ort", {"ort/libproviders_cuda.so": elf("libcublasLt.so.99", "libcublas.so.99")})
    code, [finding], _ = env.run("ort")
    assert (code, finding["guard"], finding["needs"], finding["image"]) == (1, "cuda", 99, 98)


def test_one_cuda_major_on_an_image_without(env: Environment) -> None:
    env.install("lib", {"nvidia/lib/libcudart.so.98": elf()})
    env.install("user", {f"user/_c{MODULE}": elf("libcudart.so.98", module="_c")}, requires=("lib",))
    assert named(env, "--all") == []


# --- imports


def importing(env: Environment, name: str, code: str) -> None:
    env.install(name, {f"{name}/__init__.py": code.encode(), f"{name}/_c{MODULE}": elf(module="_c")})


@pytest.mark.parametrize(
    "text",
    [
        "/x/_c.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
        "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /x/_c.so)",
        "/usr/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x/_c.so)",
    ],
)
def test_a_module_that_cannot_be_loaded(env: Environment, text: str) -> None:
    importing(env, "ops", f"raise ImportError({text!r})")
    assert named(env, "ops") == [("import", "ops", True)]


def test_a_broken_package_is_named_and_not_who_imports_it(env: Environment) -> None:
    importing(env, "inner", "raise ImportError(__file__ + ': undefined symbol: gone')")
    importing(env, "outer", "import inner")
    assert named(env, "outer", "inner") == [("import", "inner", True)]


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('No CUDA GPUs are available')",
        "raise ImportError('libcuda.so.1: cannot open shared object file: No such file or directory')",
        "import not_there",
        "raise SystemExit(3)",
        "print('libnvinfer.so.10: cannot open shared object file')",
        "import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and os.environ['HOME'] == os.getcwd()",
    ],
)
def test_an_import_that_fails_for_another_reason(env: Environment, code: str) -> None:
    importing(env, "fine", code)
    assert named(env, "fine") == []


def test_an_import_that_ends_python_takes_no_other_with_it(env: Environment) -> None:
    importing(env, "crash", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    importing(env, "later", "raise ImportError('undefined symbol: gone')")
    assert named(env, "crash", "later") == [("import", "later", True), ("import", "crash", False)]


def test_an_import_that_never_ends_is_ended_with_what_it_started(env: Environment, tmp_path: Path) -> None:
    text = PROGRAM.read_text(encoding="utf-8")
    assert text.count("IMPORT_SECONDS = 120") == 1
    program = tmp_path / "guards.py"
    program.write_text(text.replace("IMPORT_SECONDS = 120", "IMPORT_SECONDS = 1"), encoding="utf-8")
    child = tmp_path / "child"
    importing(
        env,
        "slow",
        f"import subprocess, time\np = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\ntime.sleep(60)",
    )
    code, [finding], _ = env.run("slow", program=program)
    assert (code, finding["text"]) == (0, "did not end within 1 s")
    state = Path(f"/proc/{child.read_text()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


# --- after a solve


def environment(*pins: str) -> EnvironmentLock:
    return EnvironmentLock(
        kit="1",
        uv="1",
        inputs_hash="sha256:0",
        image="torch2.7-cu126",
        image_lock="sha256:0",
        pythons=("3.10",),
        source_date_epoch=0,
        requirements_hash="",
        packages=tuple(
            Package(name=name, version=version, hashes=(f"sha256:{'0' * 64}",))
            for name, _, version in (pin.partition("==") for pin in pins)
        ),
    )


def found_in(catalog: Catalog, name: str, *pins: str) -> list[tuple[str, str, bool]]:
    image = catalog.find(name)
    lock = read_lock(paths.images_dir() / image.name, image)
    return [(f.guard, f.package, f.stops) for f in after_solve(catalog, image, lock, environment(*pins))]


def test_no_image_has_what_a_guard_stops(catalog: Catalog) -> None:
    locked = [image for image in catalog.images() if (paths.images_dir() / image.name / "requirements.lock").is_file()]
    assert len(locked) > 30
    for image in locked:
        lock = read_lock(paths.images_dir() / image.name, image)
        assert after_solve(catalog, image, lock, None) == [], image.name


@pytest.mark.parametrize(
    ("name", "version", "major"),
    [
        ("nvidia-cudnn-cu12", "9.5.1.17", 12),
        ("nvidia-nccl-cu13", "2.30.7", 13),
        ("cupy-cuda11x", "13.0", 11),
        ("jax-cuda12-plugin", "0.5", 12),
        ("tensorrt-cu12-libs", "10.0", 12),
        ("spconv-cu118", "2.3", 11),
        ("nvidia-dali-cuda120", "1.40", 12),
        ("torch", "2.6.0+cu118", 11),
        ("torch", "1.7.1+cu92", 9),
        ("torch-scatter", "2.1.2+pt27cu126", 12),
        ("flash-attn", "2.8.0+cu12torch2.7cxx11abifalse", 12),
        ("jaxlib", "0.4.30+cuda12.cudnn89", 12),
        ("cuda-bindings", "13.2.0", 13),
        ("nvidia-cublas", "13.4.1.3", 13),
        ("nvidia-cufft", "12.2.0.57", 0),
        ("nvidia-cuda-runtime-cu12", "12.6.77", 12),
        ("torch-scatter", "2.1.2+pt27cpu", 0),
        ("accurate", "12.0", 0),
        ("cucim", "25.2", 0),
        ("docu12", "1.0", 0),
    ],
)
def test_the_cuda_that_a_package_says_it_is_for(catalog: Catalog, name: str, version: str, major: int) -> None:
    assert cuda_major(catalog, name, version) == major


@pytest.mark.parametrize(
    ("image", "pin", "guard", "stops"),
    [
        ("torch2.7-cu126", "nvidia-nccl-cu13==2.30.7", "cuda", True),
        ("torch2.7-cu126", "cupy-cuda11x==13.0", "cuda", True),
        ("torch2.7-cu126", "cuda-bindings==13.2.0", "cuda", True),
        ("torch2.14-cu130", "nvidia-cudnn-cu12==9.5", "cuda", True),
        ("torch2.7-cu126", "torch-scatter==2.1.2+pt27cpu", "cpu", True),
        ("torch2.7-cu126", "torchvision==0.22.1+rocm6.3", "cpu", True),
        ("tf2.21-cu125", "tensorflow-cpu==2.21.0", "cpu", True),
        ("torch2.7-cu126", "faiss-cpu==1.12.0", "cpu", False),
        ("torch2.7-cu126", "onnxruntime==1.32.0", "cpu", False),
        ("torch2.7-cu126", "pillow-simd==9.5", "owners", True),
        ("torch2.7-cu126", "opencv-contrib-python==5.0.0.93", "owners", True),
        ("torch2.7-cu126", "opencv-python==5.0.0.93", "owners", False),
        ("torch2.7-cu126", "opencv-python==4.12.0.88", "owners", True),
        ("torch2.7-cu126", "pyarrow==15.0.2", "numpy", True),
    ],
)
def test_a_package_that_no_resolver_refuses(catalog: Catalog, image: str, pin: str, guard: str, stops: bool) -> None:
    assert found_in(catalog, image, pin) == [(guard, pin.partition("==")[0], stops)]


@pytest.mark.parametrize(
    ("image", "pins"),
    [
        ("torch2.7-cu126", ("einops==0.8.1", "cupy-cuda12x==13.6", "pyarrow==21.0", "faiss-gpu-cu12==1.12")),
        ("torch2.7-cu126", ("pillow==12.0",)),  # in the image's place
        ("tf-cpu", ("onnxruntime==1.32.0", "faiss-cpu==1.12.0", "nvidia-nccl-cu12==2.27")),
        ("torch2.14-cu130", ("cupy-cuda13x==13.6", "cuda-python==13.1.0")),
        ("torch2.7-cu126", ()),
    ],
)
def test_what_goes_together(catalog: Catalog, image: str, pins: tuple[str, ...]) -> None:
    assert found_in(catalog, image, *pins) == []


def test_two_builds_where_one_takes_the_place_of_the_other(catalog: Catalog) -> None:
    assert found_in(catalog, "torch2.7-cu126", "onnxruntime==1.32.0", "onnxruntime-gpu==1.22.0") == [
        ("cpu", "onnxruntime", True)
    ]
    assert found_in(catalog, "tf-cpu", "nvidia-nccl-cu12==2.27", "nvidia-nccl-cu13==2.30") == [
        ("cuda", "nvidia-nccl-cu13", True)
    ]


def test_a_finding_names_the_package_and_what_to_do(catalog: Catalog) -> None:
    image = catalog.find("torch2.7-cu126")
    lock = read_lock(paths.images_dir() / image.name, image)
    added = environment("nvidia-nccl-cu13==2.30.7", "cuda-bindings==13.2.0", "opencv-python==4.12.0.88")
    assert after_solve(catalog, image, lock, added) == [
        Finding(
            guard="cuda",
            package="cuda-bindings",
            message="cuda-bindings 13.2.0 is for CUDA 13, and torch2.7-cu126 has CUDA 12.6: "
            "two of them do not go together",
            hint="`kit add 'cuda-bindings<13'` holds it to CUDA 12",
            stops=True,
        ),
        Finding(
            guard="cuda",
            package="nvidia-nccl-cu13",
            message="nvidia-nccl-cu13 2.30.7 is for CUDA 13, and torch2.7-cu126 has CUDA 12.6: "
            "two of them do not go together",
            hint="take `nvidia-nccl-cu12`, or an image of CUDA 13",
            stops=True,
        ),
        Finding(
            guard="owners",
            package="opencv-python",
            message="opencv-python 4.12.0.88 and opencv-python-headless 5.0.0.93 are both `cv2`, "
            "and write the same files",
            hint="they go together at one version: `kit add opencv-python==5.0.0.93`",
            stops=True,
        ),
    ]


# --- what the program is told, and what is said of what it writes


def test_what_the_program_is_told(catalog: Catalog) -> None:
    assert arguments(catalog, environment("numba==0.61", "Opencv_Python==5.0.0.93", "einops==0.8")) == (
        "--share=opencv-python,opencv-python-headless",
        "--optional=numba:numba/np/ufunc/omppool.*",
        "--optional=numba:numba/np/ufunc/tbbpool.*",
        "einops",
        "numba",
        "opencv-python",
    )


def test_sentences_of_what_the_program_finds(env: Environment, catalog: Catalog) -> None:
    env.install("numpy", {"numpy/__init__.py": b""}, version="2.4.6")
    env.install("cuda", {"nvidia/cuda_runtime/lib/libcudart.so.98": b"98"})
    env.install("onnxruntime-gpu", {"onnxruntime/__init__.py": b"gpu", "onnxruntime/x.py": b"gpu"})
    env.install("onnxruntime", {"onnxruntime/__init__.py": b"", "onnxruntime/x.py": b""})
    env.install("pyzbar", {f"pyzbar/_c{MODULE}": elf("libzbar.so.0", module="_c")})
    env.install("odd", {f"odd/_c{MODULE}": elf("libnowhere.so.1", module="_c")})
    env.install("pandas", {f"pandas/_c{MODULE}": elf(module="_c", text=OLD_NUMPY)})
    env.install("codec", {"codec/libcodec.so": elf("libcudart.so.99")})
    importing(env, "ops", "raise ImportError('undefined symbol: gone')")
    importing(env, "crash", "import os; os._exit(7)")
    names = ("onnxruntime", "pyzbar", "odd", "pandas", "codec", "ops", "crash")
    code, _, lines = env.run(*names)
    assert code == 1
    log = ["#9 [2/2] RUN", *(f"#9 12.34 {line}" for line in lines), *lines, "#9 ERROR: exit code: 1"]
    found = {finding.package: finding for finding in sentences_of(catalog, log)}
    assert sorted(found) == sorted(names)
    assert [name for name in names if not found[name].stops] == ["crash"]
    assert [(found[name].message, found[name].hint) for name in names] == [
        (
            "onnxruntime and onnxruntime-gpu both write onnxruntime/__init__.py and 1 more, each something else",
            "keep one of them: the one that is installed later writes over the other: "
            "without CUDA, and nothing says so",
        ),
        (
            f"pyzbar needs libzbar.so.0, which the image lacks (pyzbar/_c{MODULE})",
            "`kit add --system libzbar0`",
        ),
        (
            f"odd needs libnowhere.so.1, which the image lacks (odd/_c{MODULE})",
            "`apt-file search libnowhere.so.1` names the distribution's package that has it: "
            "`kit add --system PACKAGE`",
        ),
        (
            f"pandas is compiled for another NumPy than the image's 2.4.6 (pandas/_c{MODULE})",
            "`kit add 'pandas>=2.2.2'`",
        ),
        (
            "codec is built for CUDA 99: it needs libcudart.so.99, and the image has CUDA 98",
            "take a build or release of it for CUDA 98, or an image of CUDA 99 (`kit list`)",
        ),
        (
            "ops cannot be loaded: undefined symbol: gone",
            "it is compiled against another release of what it stands on: take its build for this image's",
        ),
        ("importing crash ended Python with 7", "does it load where it is to run?"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "kit-guard: ",
        'kit-guard: {"guard": "libraries", "pack',
        "kit-guard: []",
        'kit-guard: {"guard": "other", "package": "x"}',
        'kit-guard: {"guard": "libraries"}',
        "kit-guard: " + "[" * 100_000,
    ],
)
def test_a_line_that_is_none_of_the_programs_says_nothing(catalog: Catalog, line: str) -> None:
    assert sentences_of(catalog, [line]) == []
