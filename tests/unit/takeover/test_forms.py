"""What each form has of its own: specifiers, names, lines that go on, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.catalog import load_catalog
from kit.errors import BadInputError
from kit.takeover import TakenOver, read

CATALOG = load_catalog()


def of(folder: Path, text: str, name: str = "requirements.txt") -> TakenOver:
    (folder / name).write_text(text, encoding="utf-8")
    return read(folder / name, CATALOG)


@pytest.mark.parametrize(
    ("spec", "package"),
    [
        ("einops", "einops"),
        ("einops=0.8", "einops==0.8.*"),
        ("einops=0.8.0", "einops==0.8.0"),
        ("einops==0.8", "einops==0.8"),
        ("einops=0.8.0=pyhd8ed1ab_0", "einops==0.8.0"),
        ("einops 0.8.*", "einops==0.8.*"),
        ("einops >=0.7,<1", "einops<1,>=0.7"),
        ("einops>=0.7", "einops>=0.7"),
        ("conda-forge::einops=0.8", "einops==0.8.*"),
        ("einops[version='>=0.7']", "einops>=0.7"),
        ("scikit-learn=*", "scikit-learn"),
    ],
)
def test_specifiers_of_conda(spec: str, package: str, tmp_path: Path) -> None:
    found = of(tmp_path, f"dependencies:\n  - {json.dumps(spec)}\n", "environment.yml")
    assert found.packages == (package,)


@pytest.mark.parametrize("spec", ["numpy=1.26|1.27", "pkg=2023c_bad", "=1.0", "a b c d"])
def test_what_is_no_specifier_is_left(spec: str, tmp_path: Path) -> None:
    found = of(tmp_path, f"dependencies:\n  - {json.dumps(spec)}\n", "environment.yml")
    assert found.packages == ()
    assert len(found.left) == 1


def test_names_of_conda_stand_once() -> None:
    found = [name for row in CATALOG.conda_names for name, _ in row.names]
    found += [name for row in CATALOG.conda_system for name, _ in row.names]
    assert sorted(set(found)) == sorted(found)


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ('einops = "^0.7"', "einops>=0.7,<0.8"),
        ('einops = "^1.2.3"', "einops>=1.2.3,<2"),
        ('einops = "^0"', "einops>=0,<1"),
        ('einops = "~1.2"', "einops>=1.2,<1.3"),
        ('einops = "~1"', "einops>=1,<2"),
        ('einops = "~=1.2"', "einops~=1.2"),
        ('einops = "1.2"', "einops==1.2"),
        ('einops = ">=1.2, <2"', "einops>=1.2,<2"),
        ('einops = "*"', "einops"),
        ('einops = {version = "^1", python = ">=3.9"}', 'einops>=1,<2 ; python_version >= "3.9"'),
    ],
)
def test_versions_of_poetry(line: str, package: str, tmp_path: Path) -> None:
    found = of(tmp_path, f'[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\n{line}\n', "pyproject.toml")
    assert [_sorted(text) for text in found.packages] == [_sorted(package)]


def _sorted(requirement: str) -> str:
    from packaging.requirements import Requirement

    return str(Requirement(requirement))


def test_options_of_pip_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("rich\n", encoding="utf-8")
    found = of(
        tmp_path,
        "-rmore.txt\n--requirement=more.txt\n-i https://a.example/simple\n--pre\n--no-binary :all:\n"
        "einops \\\n  >=0.7  # why\n# a comment \\\ntimm\n-r missing.txt\n-c https://b.example/c.txt\n",
    )
    assert found.packages == ("rich", "einops>=0.7", "timm")
    assert found.indexes == ("https://a.example/simple",)
    assert [left.line for left in found.left] == [4, 5, 10, 11]


@pytest.mark.parametrize(
    ("copy", "named"),
    [
        ("requirements.txt /tmp/requirements.txt", "/tmp/requirements.txt"),
        ("requirements.txt setup.cfg /tmp/", "/tmp/requirements.txt"),
        ("--chown=ada requirements.txt .", "requirements.txt"),
        (". /app", "requirements.txt"),
        ("docker/extra.txt ./", "extra.txt"),
    ],
)
def test_a_file_that_a_dockerfile_copies_is_that_of_the_folder(copy: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    for name in ("requirements.txt", "docker/extra.txt"):
        (tmp_path / name).write_text("einops\n", encoding="utf-8")
    text = f"FROM python:3.12\nCOPY {copy}\nRUN pip install --no-cache-dir -r {named}\n"
    assert of(tmp_path, text, "Dockerfile").packages == ("einops",)


def test_what_another_command_prints_is_not_known(tmp_path: Path) -> None:
    text = "FROM python:3.12\nRUN pip install rich $(cat a | tr b c) `cat d` && for p in a b; do pip install $p; done\n"
    found = of(tmp_path, text, "Dockerfile")
    assert found.packages == ("rich",)
    assert sum("reads a variable" in left.reason for left in found.left) == 2


def test_a_login_in_an_address_is_left_without_it(tmp_path: Path) -> None:
    found = of(
        tmp_path,
        "--extra-index-url https://ada:hunter22@a.example/simple\npkg @ https://ada:hunter22@a.example/p.whl\n"
        "--index-url https://a.example/simple?token=abcdefgh123\n",
    )
    assert found.indexes == ()
    assert len(found.left) == 3
    assert "hunter22" not in repr(found)
    assert "abcdefgh123" not in repr(found)


def test_files_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("secret-package\n", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "dir.txt").mkdir()
    found = of(folder, "-r ../outside.txt\n-r link.txt\n-r /etc/passwd\n-r dir.txt\n")
    assert found.packages == ()
    assert [left.line for left in found.left] == [1, 2, 3, 4]


def test_files_that_name_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r b.txt\neinops\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("-r a.txt\nrich\n", encoding="utf-8")
    found = of(tmp_path, "-r a.txt\n")
    assert set(found.packages) == {"einops", "rich"}
    assert "names itself" in found.left[0].reason
    for number in range(40):
        (tmp_path / f"chain{number}.txt").write_text(f"-r chain{number + 1}.txt\n", encoding="utf-8")
    assert any("more than 20" in left.reason for left in of(tmp_path, "-r chain0.txt\n").left)


def test_a_notebook_asks_for_no_module_that_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("", encoding="utf-8")
    (tmp_path / "package").mkdir()
    cells = [{"cell_type": "code", "source": "import helpers, package.part, json, pandas\nfrom . import x"}]
    found = of(tmp_path, json.dumps({"cells": cells}), "a.ipynb")
    assert found.packages == ("pandas",)
    assert found.left == ()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("environment.yml", "dependencies: [a, b", "environment.yml:1: not valid YAML"),
        ("environment.yml", "- a\n- b\n", "no keys at its top"),
        ("environment.yml", "", "no keys at its top"),
        ("environment.yml", "a: " + "[" * 3000, "nested too deeply"),
        ("environment.yml", "a: 1\n" * 60_000, "more than 262,144 characters"),
        ("pyproject.toml", "[project\n", "pyproject.toml:1: not valid TOML"),
        ("uv.lock", "version = 1\n", "no [[package]] in it"),
        ("pylock.toml", "a = " + "[" * 3000, "not valid TOML"),
        ("Pipfile.lock", "{", "Pipfile.lock:1: not valid JSON"),
        ("Pipfile.lock", "[]", "no keys at its top"),
        ("a.ipynb", "{}", "has no cells"),
        ("a.ipynb", "[" * 100_000, "not valid JSON: nested too deeply"),
        ("build.envd", "def build(:\n", "is not Starlark that can be read"),
        ("setup.py", "", "kit knows no file of that name"),
    ],
)
def test_files_that_are_none(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as raised:
        of(tmp_path, text, name)
    assert said in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"torch\xff\n", "is not UTF-8 text (byte 6)"),
        ("torch\n".encode("utf-16"), "is not UTF-8 text"),
        (b"torch\0\n", "it has NUL bytes"),
        (b"x" * (9 << 20), "It has more than"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(data)
    with pytest.raises(BadInputError) as raised:
        read(path, CATALOG)
    assert said in raised.value.message


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "requirements.txt", tmp_path / "folder.txt"):
        if path.stem == "folder":
            path.mkdir()
        with pytest.raises(BadInputError):
            read(path, CATALOG)


def test_a_byte_order_mark_and_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes("\ufefftorch==2.7.1\r\neinops\r\n".encode())
    found = read(path, CATALOG)
    assert (found.image, found.packages, found.left) == ("torch2.7", ("einops",), ())


def test_a_bomb_of_aliases_is_read_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    found = of(tmp_path, "\n".join([*lines, "dependencies: *a29"]), "environment.yml")
    assert found.packages == ()
    assert found.left


def test_what_no_file_can_hold_is_left(tmp_path: Path) -> None:
    half = "\\ud800"
    specs = f'["a{half}", "b; sys_platform != \'{half}\'", {{"pip": ["c; os_name != \'{half}\'", "-i https://{half}.example"]}}]'
    found = of(tmp_path, f'{{"dependencies": {specs}, "variables": {{"A": "{half}"}}}}', "environment.yml")
    assert (found.packages, found.indexes, found.env) == ((), (), ())
    assert len(found.left) == 5


def test_the_hashes_of_a_requirement_are_not_shown_with_it(tmp_path: Path) -> None:
    found = of(tmp_path, f"torch==2.7.1\nnumpy==1.0 --hash=sha256:{'a' * 64}\n")
    assert found.left[0].text == "numpy==1.0"
