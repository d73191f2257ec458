"""Edits of a project's kit.toml: what was asked for changes, and nothing beside it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from kit.environment import manifest
from kit.environment.manifest import Contents
from kit.errors import BadInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WRITTEN = """\
# The project of the summer.
image = "torch-cu126"

[environment]   # what it runs in
image = 'torch'
packages = [
    "einops>=0.8",   # for the patches
    'transformers',
    # no longer needed?
    "timm<2",
]
# packages of the distribution
system = ["ffmpeg"]

# where results go
[env]
WANDB_MODE = "offline"
"""


def test_what_is_added_is_one_line_more() -> None:
    edited = manifest.add(WRITTEN, ["lightning[extra]>=2.4"], ["graphviz"])
    assert edited.text == WRITTEN.replace('"timm<2",\n', '"timm<2",\n    "lightning[extra]>=2.4",\n').replace(
        '["ffmpeg"]', '["ffmpeg", "graphviz"]'
    )
    assert edited.packages == ("einops>=0.8", "transformers", "timm<2", "lightning[extra]>=2.4")
    assert edited.system == ("ffmpeg", "graphviz")


@pytest.mark.parametrize(
    ("given", "entry"),
    [
        ("Einops", '"einops>=0.8",   #'),
        ("einops==0.8.1", '"einops==0.8.1",   #'),
        ("einops[torch]", '"einops[torch]>=0.8",   #'),
        ("Transformers>=4.50", "'Transformers>=4.50',"),
        ("timm @ https://index.example/timm-1.0-py3-none-any.whl", '"timm @ https://index.example/timm-1.0'),
    ],
)
def test_what_is_there_changes_in_its_place(given: str, entry: str) -> None:
    edited = manifest.add(WRITTEN, [given])
    assert entry in edited.text
    assert len(edited.packages) == 3
    assert len(edited.text.splitlines()) == len(WRITTEN.splitlines())


def test_what_is_there_already_changes_nothing() -> None:
    assert manifest.add(WRITTEN, ["einops", "timm"], ["ffmpeg"]).text == WRITTEN


@pytest.mark.parametrize(
    ("known", "given", "after"),
    [
        (["a; sys_platform == 'linux'"], "a>=2", ['a>=2; sys_platform == "linux"']),
        (["a; sys_platform == 'linux'"], "a>=2; sys_platform == 'linux'", ["a>=2; sys_platform == 'linux'"]),
        (["a"], "a<2; python_version < '3.11'", ["a", "a<2; python_version < '3.11'"]),
        (["a[x]>=1"], "a[y]>=2", ["a[x,y]>=2"]),
        (["a>=1 ; os_name == 'posix'"], "a[x]", ["a[x]>=1 ; os_name == 'posix'"]),
        (
            ["a ; os_name == 'posix'"],
            "a @ https://x.example/a.whl",
            ['a @ https://x.example/a.whl ; os_name == "posix"'],
        ),
    ],
)
def test_conditions_and_extras(known: list[str], given: str, after: list[str]) -> None:
    text = f"[environment]\npackages = {[*known]!r}\n"
    edited = manifest.add(text, [given])
    assert list(edited.packages) == after
    assert [str(Requirement(entry)) for entry in edited.packages]


def test_one_that_stands_there_under_two_conditions_is_asked_back() -> None:
    text = "[environment]\npackages = [\"a<2; os_name == 'nt'\", \"a>=2; os_name == 'posix'\"]\n"
    with pytest.raises(BadInputError, match="2 times, each under a condition"):
        manifest.add(text, ["a>=3"])
    assert manifest.remove(text, ["a"]).packages == ()


def test_what_is_taken_out_takes_its_own_comment_along() -> None:
    edited = manifest.remove(WRITTEN, ["EINOPS"], ["ffmpeg"])
    assert edited.text == WRITTEN.replace('    "einops>=0.8",   # for the patches\n', "").replace('["ffmpeg"]', "[]")
    assert edited.packages == ("transformers", "timm<2")


@pytest.mark.parametrize("given", ["Type_Extensions", "type.extensions", "type-extensions>=1"])
def test_names_are_compared_as_the_index_does(given: str) -> None:
    assert manifest.remove('[environment]\npackages = ["Type-Extensions>=1"]\n', [given]).packages == ()


def test_what_is_not_there_is_said_with_what_is_near() -> None:
    with pytest.raises(BadInputError, match="has no transformer") as raised:
        manifest.remove(WRITTEN, ["transformer"])
    assert raised.value.hint == "did you mean `transformers`?"
    with pytest.raises(BadInputError, match=r"`system` of kit\.toml has no vim") as raised:
        manifest.remove(WRITTEN, system=["vim"])
    assert raised.value.hint == "there are: ffmpeg"


@pytest.mark.parametrize(
    "given",
    ["-r requirements.txt", "--index-url=https://index.example", "two words", "", "a>=", "a @ https://u:p@x.example/a"],
)
def test_what_is_no_package(given: str) -> None:
    with pytest.raises(BadInputError):
        manifest.add(WRITTEN, [given])


@pytest.mark.parametrize("given", ["lib;rm", "FFmpeg", "-y", "a b", "$(id)", ""])
def test_what_is_no_package_of_the_distribution(given: str) -> None:
    with pytest.raises(BadInputError, match="not the name of a package"):
        manifest.add(WRITTEN, system=[given])


@pytest.mark.parametrize(
    ("text", "after"),
    [
        # The comment below may be about the next table.
        (
            '[environment]\nimage = "x"\n\n# about env\n[env]\nA = "b"\n',
            '[environment]\nimage = "x"\npackages = [\n    "a",\n]\n\n# about env\n[env]\nA = "b"\n',
        ),
        ('[environment.env]\nA = "b"\n', '[environment]\npackages = ["a"]\n\n[environment.env]\nA = "b"\n'),
        ('environment = { image = "x" }\nport = 1\n', 'environment = { image = "x", packages = ["a"]}\nport = 1\n'),
        (
            'environment.image = "x" # c\nport = 1\n',
            'environment.image = "x" # c\nenvironment.packages = ["a"]\nport = 1\n',
        ),
        ("[environment]\npackages = []  # c\n", '[environment]\npackages = [\n    "a",\n]  # c\n'),
        ('[environment]\nimage = "x"', '[environment]\nimage = "x"\npackages = ["a"]\n'),
        (
            '\ufeff[environment]\r\nimage = "x"\r\n[env]\r\n',
            '\ufeff[environment]\r\nimage = "x"\r\npackages = [\r\n    "a",\r\n]\r\n[env]\r\n',
        ),
    ],
)
def test_other_ways_to_write_the_table(text: str, after: str) -> None:
    edited = manifest.add(text, ["a"])
    assert edited.text == after
    assert edited.packages == ("a",)


def test_a_file_without_the_table() -> None:
    with pytest.raises(BadInputError, match=r"no table `\[environment\]`") as raised:
        manifest.add("port = 1\n", ["a"])
    assert "kit init" in raised.value.hint


CONTENTS = Contents(
    image="torch>=2.6",
    packages=("einops", 'a; python_version < "3.11"'),
    indexes=("https://index.example/simple",),
    project=True,
    env=(("A", 'x "y" \\'), ("b.c", "")),
)


def test_a_new_one_says_what_it_was_given() -> None:
    assert tomllib.loads(manifest.create(CONTENTS))["environment"] == {
        "image": "torch>=2.6",
        "packages": list(CONTENTS.packages),
        "system": [],
        "indexes": ["https://index.example/simple"],
        "project": True,
        "env": {"A": 'x "y" \\', "b.c": ""},
    }
    bare = manifest.create(Contents(image="torch-cpu"))
    assert manifest.add(bare, ["einops"]).text == bare.replace("packages = []", 'packages = [\n    "einops",\n]')


@pytest.mark.parametrize("text", ["", "\n", "port = 1", "port = 1\n[env]\nA = 'b'\n", "\ufeffport = 1\r\n", "# c\n"])
def test_a_table_for_a_file_that_is_there(text: str) -> None:
    made = manifest.with_table(text, CONTENTS)
    assert made.startswith(text)
    assert ("\r\n" in text) == ("\r\n" in made)
    document = tomllib.loads(made.removeprefix("\ufeff"))
    assert document.pop("environment")["image"] == "torch>=2.6"
    assert document == tomllib.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize("text", [WRITTEN, "environment.image = 'x'\n", "[environment.env]\n", "environment = {}"])
def test_no_second_table(text: str) -> None:
    with pytest.raises(BadInputError, match="has an environment already"):
        manifest.with_table(text, CONTENTS)


@pytest.mark.parametrize(
    ("version", "entry"),
    [
        ("0.8.1", "a>=0.8"),
        ("4", "a>=4.0"),
        ("2024.12.1", "a>=2024.12"),
        ("0.0.20", "a>=0.0.20"),
        ("1.2.3+cu126", "a>=1.2"),
        ("1!2.3.4", "a>=1!2.3"),
        ("2.0b1", "a>=2.0b1"),
        ("2.0.1.dev3", "a>=2.0"),
        ("0", "a>=0"),
    ],
)
def test_a_bound_takes_the_version_that_it_is_of(version: str, entry: str) -> None:
    assert manifest.bounded("a", version) == entry
    assert manifest.admits(entry, version)


def test_bounds_are_for_those_that_have_none() -> None:
    text = '[environment]\npackages = ["A[x] ; os_name == \'posix\'", "b>=1", "c", "d @ https://x.example/d.whl"]\n'
    edited = manifest.with_bounds(text, {"a": "1.2.3", "b": "4.5", "d": "1.0"})
    assert edited.packages == ("A[x]>=1.2 ; os_name == 'posix'", "b>=1", "c", "d @ https://x.example/d.whl")


def test_what_cannot_be_edited_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_set", lambda array, new: None)
    with pytest.raises(BadInputError, match="in a way that kit cannot edit") as raised:
        manifest.add(WRITTEN, ["lightning"])
    assert '    "lightning",' in "\n".join(raised.value.details)


NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon"])
ENTRY = st.builds(lambda name, more: name + more, NAMES, st.sampled_from(["", ">=1", "[x]<2", "; os_name == 'posix'"]))
COMMENT = st.sampled_from(["", "  # c", "# ], [", "\t# 'q' \"r\""])
BEFORE = st.sampled_from(
    ["", "# top\n\n", 'image = "x"   # i\n', "[env]\nA = 'b'  # e\n\n", "port = 0x1F\nmounts = [\n  # none\n]\n"]
)
AFTER = st.sampled_from(
    ["", "\n", "project = true # p\n", "\n# about env\n[env2]\nA.b = 1\n", "check = '''\n[environment]\n'''\n\n\n"]
)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[str], str]:
    """Entries, and a way of writing them down."""
    entries = draw(st.lists(ENTRY, max_size=4, unique_by=lambda entry: Requirement(entry).name))
    quoted = [f"'{e}'" if "'" not in e and draw(st.booleans()) else f'"{e}"' for e in entries]
    if draw(st.booleans()):
        gap = draw(st.sampled_from(["", " ", "  "]))
        return entries, f"[{gap}{f',{gap}'.join(quoted)}{',' * (draw(st.booleans()) and bool(quoted))}{gap}]"
    lines = []
    for number, entry in enumerate(quoted):
        if draw(st.booleans()):
            lines.append(f"  # about {number}")
        is_last = number == len(quoted) - 1
        lines.append(f"  {entry}{'' if is_last and draw(st.booleans()) else ','}{draw(COMMENT)}")
    return entries, "\n".join(["[", *lines, *draw(st.sampled_from([[], ["  # end"]])), "]"])


@given(BEFORE, lists(), COMMENT, AFTER, st.booleans(), st.data())
def test_nothing_but_the_list_changes(
    before: str, written: tuple[list[str], str], comment: str, after: str, has_crlf: bool, data: st.DataObject
) -> None:
    entries, array = written
    head, tail = f"{before}[environment]\nimage = 'y'\npackages = ", f" {comment}\n{after}"
    if has_crlf:
        head, array, tail = (part.replace("\n", "\r\n") for part in (head, array, tail))
    text = head + array + tail
    names = [Requirement(entry).name for entry in entries]
    if entries and data.draw(st.booleans()):
        gone = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        edited = manifest.remove(text, gone)
        assert list(edited.packages) == [e for e in entries if Requirement(e).name not in gone]
    else:
        new = data.draw(st.lists(ENTRY, min_size=1, max_size=3))
        edited = manifest.add(text, new)
        assert {Requirement(e).name for e in edited.packages} == {*names, *(Requirement(e).name for e in new)}
        assert [e for e in edited.packages if e in entries] == [e for e in entries if e in edited.packages]
    assert edited.text.startswith(head)
    assert edited.text.endswith(tail)
    inner = edited.text[len(head) : len(edited.text) - len(tail)]
    kept = {line.strip() for line in array.splitlines() if line.strip().startswith("#")}
    assert kept <= {line.strip() for line in inner.splitlines()}
    expected = {**tomllib.loads(text)}
    expected["environment"] = {**expected["environment"], "packages": list(edited.packages)}
    assert tomllib.loads(edited.text) == expected
    assert not has_crlf or "\n" not in edited.text.replace("\r\n", "")
