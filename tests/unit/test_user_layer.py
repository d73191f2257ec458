"""Where `pip install` in a container installs to and what it is held to: real Pythons and pips, without an engine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import ANY

import pytest

from kit import layout, paths

SHOW = "import framework, glue; print(framework.VERSION, glue.VERSION)"


def template(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, paths.templates_dir() / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_wheel(folder: Path, name: str, version: str, *requirements: str, program: bool = False) -> None:
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\ndef main():\n    print(VERSION)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if program:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n"
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


@dataclass
class Inside:
    """What an image has at /opt/kit and in the home folder, somewhere else."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "venv/bin/python"

    @property
    def layer(self) -> Path:
        return self.root / "home/.local/venv"

    def run(self, *command: str | Path, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        environment |= {"HOME": str(self.root / "home"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{self.root}/wheels"}
        done = subprocess.run(
            [str(word) for word in command],
            check=False,
            env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables},
            cwd=self.root,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def pip(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(self.python, "-m", "pip", *words, code=code)

    def says(self, text: str) -> str:
        return self.run(self.python, "-c", text).stdout.strip()


def give_pip(environment: Path) -> Path:
    """An environment with the pip of this one; its folder for packages."""
    import packaging
    import pip

    site = next(environment.glob("lib/python3*/site-packages"))
    for module in (pip, packaging):
        (site / module.__name__).symlink_to(Path(module.__file__).parent)
    return site


@pytest.fixture
def inside(image: Inside) -> Inside:
    """The image with a new volume as its home folder."""
    home = image.root / "home"
    if home.is_file():
        home.unlink()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Inside:
    """An image with framework 1.1, which wants `loose<4`, and glue 5.0."""
    found = Inside(tmp_path_factory.mktemp("image").resolve())
    wheels, opt = found.root / "wheels", found.root
    wheels.mkdir()
    (opt / "home").mkdir()
    for version in ("1.0", "1.1"):
        make_wheel(wheels, "framework", version, "loose<4", "torch==1.1 ; extra == 'gpu'")
    for version in ("4.0", "5.0", "6.0"):
        make_wheel(wheels, "glue", version)
    for version in ("3.0", "4.0"):
        make_wheel(wheels, "loose", version)
    make_wheel(wheels, "app", "1.0", "glue<5", program=True)
    make_wheel(wheels, "other-app", "1.0", "framework<1.1")
    subprocess.run(
        [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", "venv"], cwd=opt, check=True
    )
    site = give_pip(opt / "venv")
    pip = ("-s", "-m", "pip", "install", "--quiet", "framework==1.1", "glue==5.0", "loose==3.0")
    found.run(found.python, *pip, PIP_PREFIX=str(opt / "venv"))
    held = found.run(found.python, "-s", paths.templates_dir() / "hold.py", "framework", "torch*").stdout
    (opt / "constraints.txt").write_text(held)
    # As templates/begin.sh does it.
    shutil.copy(paths.templates_dir() / "user_layer.py", site / "kit_user_layer.py")
    call = f"kit_user_layer.start({str(found.layer)!r}, {str(opt / 'constraints.txt')!r})"
    (site / "kit.pth").write_text(f"import kit_user_layer; {call}\n")
    text = (paths.templates_dir() / "pip_python.py").read_text()
    text = text.replace(layout.USER_VENV, str(found.layer)).replace(layout.VENV, str(opt / "venv"))
    (opt / "pip-python").write_text(text)
    (opt / "pip-python").chmod(0o755)
    (opt / "venv/pip.conf").write_text(f"[global]\npython = {opt / 'pip-python'}\n")
    return found


def test_what_is_installed_can_be_imported_at_once_and_is_gone_when_uninstalled(inside):
    notebook = (
        "import subprocess, sys\n"
        "def pip(*words): subprocess.run([sys.executable, '-m', 'pip', '--quiet', *words], check=True)\n"
        "pip('install', 'app')\n"
        "import app\n"
        "print(app.VERSION)\n"
        "pip('uninstall', '--yes', 'app')\n"
    )
    assert inside.says(notebook) == "1.0"
    assert "No module named 'app'" in inside.run(inside.python, "-c", "import app", code=1).stderr
    assert not (inside.layer / "bin/app").exists()


@pytest.mark.parametrize("version", ["4.0", "6.0"])
def test_the_users_version_takes_the_place_of_the_images_until_it_is_uninstalled(inside, version):
    assert inside.says(SHOW) == "1.1 5.0"
    inside.pip("install", f"glue=={version}")
    assert inside.says(SHOW) == f"1.1 {version}"
    assert f"glue=={version}" in inside.pip("list", "--format=freeze").stdout
    inside.pip("uninstall", "--yes", "glue")
    assert inside.says(SHOW) == "1.1 5.0"


def test_a_program_of_the_users_layer_runs_with_both(inside):
    inside.pip("install", "app")
    assert inside.run(inside.layer / "bin/app").stdout == "1.0\n"
    assert inside.run(inside.layer / "bin/python", "-c", SHOW).stdout == "1.1 4.0\n"


def test_the_image_stays_as_it_is(inside):
    site = next((inside.root / "venv").glob("lib/python3*/site-packages"))
    inside.says("import framework, glue")
    before = sorted(site.rglob("*"))
    inside.pip("install", "glue==6.0")
    said = inside.pip("uninstall", "--yes", "glue", "framework")
    assert "Not uninstalling framework" in said.stdout + said.stderr
    assert sorted(site.rglob("*")) == before


@pytest.mark.parametrize(
    ("wanted", "held"),
    [("framework==1.0", "framework==1.1"), ("other-app", "framework==1.1"), ("loose==4.0", "loose<4")],
)
def test_a_conflict_with_what_is_held_is_one_sentence(inside, wanted, held):
    refused = inside.pip("install", wanted, code=1)
    assert [line for line in refused.stderr.splitlines() if line.startswith("kit: ")] == [
        f"kit: what this image has needs {held}; `python -m venv` makes an environment that is not held to it"
    ]
    assert inside.says(SHOW) == "1.1 5.0"


def test_an_environment_of_the_users_own_is_bound_by_nothing(inside):
    inside.run(inside.python, "-m", "venv", "--without-pip", "own")
    give_pip(inside.root / "own")
    own = inside.root / "own/bin/python"
    inside.run(own, "-m", "pip", "install", "--quiet", "framework==1.0", "loose<4")
    assert inside.run(own, "-c", "import framework; print(framework.VERSION)").stdout == "1.0\n"
    assert "constraint" not in inside.run(own, "-m", "pip", "config", "list").stdout


def test_other_places_to_install_to(inside):
    inside.pip("install", "--target", inside.root / "target", "glue==6.0")
    assert (inside.root / "target/glue.py").is_file()
    inside.pip("install", "--user", "glue==6.0")
    assert inside.says(SHOW) == "1.1 6.0", "the user's own is the layer"


def test_the_notebook_server_runs_with_what_is_locked_and_finds_what_was_added(inside):
    server = inside.root / "venv/bin/jupyter-lab"
    server.write_text(f"#!{inside.python}\nimport app\n{SHOW}\n")
    server.chmod(0o755)
    inside.pip("install", "app")
    assert inside.run(server).stdout == "1.1 5.0\n"
    assert inside.says(SHOW) == "1.1 4.0", "and a kernel with the user's"


def test_a_python_without_the_users_packages(inside):
    inside.pip("install", "glue==6.0")
    for option in ("-s", "-I"):
        assert inside.run(inside.python, option, "-c", SHOW).stdout == "1.1 5.0\n"


def test_where_no_layer_can_be_made_python_starts_and_pip_says_so(inside):
    shutil.rmtree(inside.root / "home")
    (inside.root / "home").write_text("no folder")
    assert inside.says(SHOW) == "1.1 5.0"
    assert "kit: pip has nowhere to install to" in inside.pip("install", "glue==6.0", code=1).stderr


def test_a_layer_that_another_python_left_half_made_is_completed(inside):
    (inside.layer / "bin").mkdir(parents=True)
    (inside.layer / "bin/python").symlink_to("/usr/bin/python3")
    inside.pip("install", "glue==6.0")
    assert inside.says(SHOW) == "1.1 6.0"


def test_many_pythons_may_start_at_once(inside):
    command = [str(inside.python), "-c", SHOW]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    assert {process.communicate() for process in started} == {(b"1.1 5.0\n", b"")}


CONFLICT = """
The conflict is caused by:
    The user requested torch==2.6.0
    The user requested (constraint) torch==2.7.1

To fix this you could try to:
"""


def test_the_sentence_names_an_image_of_the_release_that_was_asked_for():
    sentences = template("pip_python").sentences
    own = "`python -m venv` makes an environment that is not held to it"
    assert sentences(CONFLICT) == [
        "kit: this image is the one for torch==2.7.1; the image for that release is named `torch2.6` (`kit list` has "
        f"all); {own}"
    ]
    assert sentences(
        CONFLICT.replace("torch==2.6.0", "tensorflow==2.19.1").replace("torch==2.7", "tensorflow==2.21")
    ) == [
        "kit: this image is the one for tensorflow==2.21.1; the image for that release is named `tf2.19` "
        f"(`kit list` has all); {own}"
    ]
    assert sentences(CONFLICT.replace("==2.6.0", "<2.7")) == [
        f"kit: this image is the one for torch==2.7.1; {own}, and `kit list` has the other images"
    ]


def test_other_failures_have_no_sentence():
    sentences = template("pip_python").sentences
    assert sentences("ERROR: No matching distribution found for nosuch") == []
    assert sentences(CONFLICT.replace("(constraint) ", "")) == []


def test_constraints_are_what_is_held_and_what_that_asks_of_others():
    constraints = template("hold").constraints
    installed = [
        (
            "Torch",
            "2.7.1",
            ["sympy>=1.13", "numpy ; extra == 'x'", "filelock", "nvidia_nccl==2.26 ; platform_system=='L'"],
        ),
        ("nvidia-nccl-cu12", "2.26.2", []),
        ("sympy", "1.14", ["mpmath<1.4"]),
        ("numpy", "2.4.6", []),
        ("torchvision", "0.22.1", ["torch==2.7.1", "typing_extensions<4", "sympy<2"]),
        ("typing-extensions", "4.16", []),
    ]
    assert constraints(installed, ["torch", "torchvision", "nvidia-*", "numpy", "pandas>=2.2.2"]) == [
        "numpy==2.4.6",
        "nvidia-nccl-cu12==2.26.2",
        "pandas>=2.2.2",
        "sympy<2,>=1.13",
        "torch==2.7.1",
        "torchvision==0.22.1",
    ], "typing-extensions<4 is what the lock overrides"


def test_the_scripts_name_the_places_of_the_layout():
    text = (paths.templates_dir() / "pip_python.py").read_text()
    assert template("pip_python").LAYER == layout.USER_VENV
    assert text.startswith(f"#!{layout.VENV}/bin/python -I\n")


def added(inside: Inside) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        inside.run(inside.python, paths.templates_dir() / "added.py", inside.layer).stdout
    )
    return found


def test_what_was_installed_is_listed_with_who_asked_for_it(inside):
    assert added(inside) == []
    inside.pip("install", "app", inside.root / "wheels/loose-3.0-py3-none-any.whl", "--force-reinstall")
    (inside.layer / f"lib/{version()}/site-packages/~lue-3.0.dist-info").mkdir()
    (inside.layer / f"lib/{version()}/site-packages/half-3.0.dist-info").mkdir()
    found = {entry.pop("name"): entry for entry in added(inside)}
    assert found.pop("loose") == {
        "version": "3.0",
        "requested": True,
        "origin": {
            "url": f"file://{inside.root}/wheels/loose-3.0-py3-none-any.whl",
            "archive_info": ANY,
        },
    }
    assert found == {
        "app": {"version": "1.0", "requested": True, "origin": {}},
        "glue": {"version": "4.0", "requested": False, "origin": {}},
    }


def version() -> str:
    return "python{}.{}".format(*sys.version_info[:2])
