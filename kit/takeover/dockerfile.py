"""A Dockerfile: what it installs with pip, apt-get and conda, and what its base image has."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator

from kit.takeover import shell
from kit.takeover.found import Found

_OTHERS = {
    "COPY": "the project's folder is mounted, nothing is copied",
    "ADD": "the project's folder is mounted, nothing is copied",
    "WORKDIR": "a container of kit's starts in the project's folder",
    "CMD": "`kit run` starts a command",
    "ENTRYPOINT": "`kit run` starts a command",
    "EXPOSE": "`ports` of kit.toml opens a port",
    "USER": "a container of kit's runs as who started it",
    "LABEL": "kit labels its images itself",
    "MAINTAINER": "kit labels its images itself",
    "VOLUME": "`mounts` of kit.toml names folders",
    "SHELL": "no command of the file is run",
    "HEALTHCHECK": "kit asks its services itself whether they answer",
    "STOPSIGNAL": "`kit stop` ends a container",
    "ONBUILD": "kit makes no images for others to stand on",
}
_COMMANDS = "kit builds of packages alone and runs no commands"


def read(text: str, found: Found) -> None:
    """Every instruction."""
    variables: dict[str, str] = {}
    stages: set[str] = set()
    for line, instruction, rest, body in _instructions(text):
        said = f"{instruction} {rest}"
        if instruction == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            image = _expanded(words[0], variables) if words else ""
            if len(words) > 2 and words[1].lower() == "as":
                stages.add(words[2].lower())
            if image.lower() not in stages:
                read_image(found, line, said, image)
        elif instruction == "ARG":
            for word in rest.split():
                name, sign, value = word.partition("=")
                if sign:
                    variables[name] = value.strip("\"'")
        elif instruction == "ENV":
            _env(found, line, said, rest, variables)
        elif instruction == "RUN":
            _run(found, line, said, rest, body, variables)
        elif instruction in ("COPY", "ADD"):
            _copied(found, rest)
            found.left(line, said, _OTHERS[instruction])
        elif instruction in _OTHERS:
            found.left(line, said, _OTHERS[instruction])
        else:
            found.left(line, said, "not an instruction of a Dockerfile")


def _copied(found: Found, rest: str) -> None:
    """Remember what a file of the folder is called in the image: `-r /tmp/requirements.txt` is that file."""
    words = [word for word in rest.split() if not word.startswith("--")]
    if "--from" in rest or rest.startswith("[") or len(words) < 2:
        return
    *sources, target = words
    for source in sources:
        is_folder = target.endswith(("/", ".")) or len(sources) > 1
        place = posixpath.join(target, posixpath.basename(source)) if is_folder else target
        found.copies[posixpath.normpath(place)] = source


def _instructions(text: str) -> Iterator[tuple[int, str, str, str]]:
    """(first line, INSTRUCTION, what follows it, its here-document) of each instruction."""
    lines = text.splitlines()
    place, escape = 0, "\\"
    if match := re.match(r"(?:#[^\n]*\n)*?#\s*escape\s*=\s*`", text[:1000]):
        escape = match[0][-1]
    while place < len(lines):
        first = place
        whole = ""
        while place < len(lines):
            line = lines[place]
            place += 1
            if line.lstrip().startswith("#") or (whole and not line.strip()):
                if not whole:
                    first = place
                    break
                continue
            if line.rstrip().endswith(escape):
                whole += line.rstrip()[:-1] + " "
                continue
            whole += line
            break
        if not whole.strip():
            continue
        instruction, _, rest = whole.strip().partition(" ")
        body = ""
        for match in (
            re.finditer(r"<<-?\s*(['\"]?)(\w+)\1", rest[:10_000])
            if instruction.upper() in ("RUN", "COPY", "ADD")
            else ()
        ):
            inner = []
            while place < len(lines) and lines[place].strip() != match[2]:
                inner.append(lines[place])
                place += 1
            place += 1
            body += "\n".join(inner) + "\n"
        yield first + 1, instruction.upper(), rest.strip(), body


def _expanded(text: str, variables: dict[str, str]) -> str:
    """A text with the variables in it that ARG and ENV gave a value; others stay."""

    def value(match: re.Match[str]) -> str:
        return variables.get(match[1], match[2] if match[2] is not None else match[0])[:1000]

    return re.sub(r"\$\{?(\w+)(?::-([^}]*))?\}?", value, text) if len(text) <= shell.LIMIT else text


def read_image(found: Found, line: int, said: str, image: str) -> None:
    """What a base image has: the framework, CUDA or Python in its tag."""
    name, _, tag = image.partition("@")[0].partition(":")
    name = name.removeprefix("docker.io/").removeprefix("library/")
    for row in found.catalog.docker_images:
        if row.repository != name or (match := re.fullmatch(row.tag, tag)) is None:
            continue
        groups = match.groupdict()
        if row.framework:
            found.wish(line, said, "framework", groups.get("version") or "", row.framework)
        if cuda := groups.get("cuda"):
            found.wish(line, said, "cuda", cuda)
        if python := groups.get("python"):
            found.wish(line, said, "python", f"=={python}.*")
        if "gpu" in groups and not groups["gpu"]:
            found.wish(line, said, "cpu")
        return None
    for row in found.catalog.docker_images:
        if row.repository == name and row.framework:
            found.left(line, said, "its tag names no release")
            return found.wish(line, said, "framework", "", row.framework)
    if name in ("ubuntu", "debian", "scratch"):
        return found.left(line, said, "the image of the catalog stands on a base of its own")
    return found.left(line, said, "what is in that image is not known: kit takes one of its catalog")


def _env(found: Found, line: int, said: str, rest: str, variables: dict[str, str]) -> None:
    try:
        words = shlex.split(rest)
    except ValueError:
        return found.left(line, said, "a quote that does not end")
    if words and "=" not in words[0]:
        pairs = [(words[0], rest.partition(" ")[2].strip().strip("\"'"))]
    else:
        pairs = [(name, value) for word in words for name, _, value in [word.partition("=")]]
    for name, value in pairs:
        given = _expanded(value, variables)
        variables[name] = given
        found.variable(line, said if len(pairs) == 1 else f"ENV {name}={value}", name, given)
    return None


def _run(found: Found, line: int, said: str, rest: str, body: str, variables: dict[str, str]) -> None:
    while match := re.match(r"--(mount|network|security)=\S+\s*", rest):
        rest = rest[match.end() :]
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            rest = shlex.join(words)
    if body:
        rest = re.sub(r"<<-?\s*(['\"]?)(\w+)\1", "", rest).strip()
        if rest and rest.split()[0] not in ("bash", "sh", "/bin/bash", "/bin/sh"):
            return found.left(line, said, _COMMANDS)
        rest = body.replace("\\\n", " ")
    return shell.read(found, line, _expanded(rest, variables), others=_COMMANDS)
