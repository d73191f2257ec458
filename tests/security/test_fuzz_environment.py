"""Damaged answers and files of a project's environment: an edit is what was meant, or an error; an answer is one."""

from __future__ import annotations

import json
import re
import sys

from hypothesis import strategies as st

from kit.environment import manifest
from kit.environment.declared import wrong_package
from kit.errors import BadInputError
from kit.project.diff import Added, beyond
from tests.security.fuzzing import ANY_JSON, damaged, fuzz, replaced

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = """\
# the project
image = "torch-cu126"

[environment] # what it runs in
image = "torch>=2.6"
packages = [
    "einops>=0.8",  # c
    'timm[x] ; os_name == "posix"',
    # end
]
system = ["ffmpeg"]
project = true

[environment.env]
A = "b"

[env]
LINES = \"\"\"
a = [b]
\"\"\"
"""
ANSWER = [
    {"name": "einops", "version": "0.8.1", "requested": True, "origin": {}},
    {
        "name": "mine",
        "version": "0.1+local",
        "requested": False,
        "origin": {"url": "https://me:secret@x.example/a.git", "vcs_info": {"vcs": "git", "commit_id": "f" * 40}},
    },
]


def edited(data: bytes) -> None:
    try:
        text = data.decode()
        before = tomllib.loads(text)
        table = before["environment"]
        if not all(isinstance(e, str) and not wrong_package(e) for e in table.get("packages", [])):
            return
        if not all(isinstance(e, str) for e in table.get("system", [])):
            return
    except (UnicodeDecodeError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return  # no such file comes to be edited
    for change in (lambda: manifest.add(text, ["new>=1", "einops"]), lambda: manifest.remove(text, ["einops"])):
        try:
            found = change()
        except BadInputError:
            continue
        after = tomllib.loads(found.text)
        for document in (before, after):
            for key in ("packages", "system"):
                document["environment"].pop(key, None)
        assert after == before
        before = tomllib.loads(text)


def test_an_edit_changes_the_lists_alone() -> None:
    fuzz(damaged([FILE.encode()]), edited)


def test_a_new_table_changes_nothing_else() -> None:
    def added(data: bytes) -> None:
        try:
            text = data.decode()
            before = tomllib.loads(text)
        except (UnicodeDecodeError, ValueError, RecursionError):
            return
        made = manifest.with_table(text, manifest.Contents(image="torch"))
        assert made.startswith(text)
        after = tomllib.loads(made)
        assert after.pop("environment")["image"] == "torch"
        assert after == before

    fuzz(damaged([FILE.partition("\n[environment]")[0].encode()]), added)


def answered(text: str) -> None:
    for package in beyond(text, {}):
        assert isinstance(package, Added)
        # As long as it stands where a URL has its password.
        assert not re.search(r"://[^\s/]*secret@", package.origin)
        assert package.name.isprintable()


def test_what_a_container_answers() -> None:
    fuzz(damaged([json.dumps(ANSWER).encode()]).map(lambda data: data.decode(errors="replace")), answered)


def test_what_a_container_may_say_in_json() -> None:
    values = replaced([ANSWER]) | ANY_JSON | st.lists(ANY_JSON)
    fuzz(values.map(json.dumps), answered)
