"""Inside, as root: files with rights they should not have, secrets, certificates, and CUDA's libraries."""
# mypy: disable-error-code="import-not-found"
# Strings and not paths: over fifty thousand files those cost seconds.
# ruff: noqa: PTH110, PTH119, PTH123, PTH207

from __future__ import annotations

import csv
import glob
import os
import re
import ssl
import stat
import sys
from collections.abc import Iterator
from typing import Any

from answer import give
from libraries import LIBRARY

# Nothing of the image's is in these, and walking them never ends or says things of the host.
NOT_THE_IMAGE = ("/proc", "/sys", "/dev", "/run/kit")
SECRET_NAMES = re.compile(
    r"""(\.netrc|_netrc|\.pypirc|pip\.conf|\.git-credentials|\.pgpass|\.npmrc|\.docker/config\.json|\.aws/credentials
    |\.kube/config|\.ssh/(id_[a-z0-9]+|authorized_keys)|\.p12|\.pfx|\.jks|\.kdbx|\.huggingface/token|huggingface/token|\.wandb|kaggle\.json|\.env)$""",
    re.VERBOSE,
)
# The image's own environment, and the user's layer that the first Python made in the container's home.
PIP_SETTINGS = {
    "/opt/kit/venv/pip.conf": "[global]\npython = /opt/kit/pip-python\n",
    "/home/kit/.local/venv/pip.conf": "[global]\nconstraint = /opt/kit/constraints.txt\n",
}
SECRET_TEXT = re.compile(
    rb"""-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----|://[^/\s:@]+:[^/\s:@]+@|\bAKIA[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}
    |\bgh[pousr]_[A-Za-z0-9]{36}|"(argon2|sha1|sha256):[^"]{20,}\"""",
    re.VERBOSE,
)
# Text is searched in what no package brought, and here, where people write into what a package did.
SEARCHED = ("/root/", "/home/", "/etc/")
SEARCH_LIMIT = 256 * 1024
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def walk() -> Iterator[tuple[str, os.stat_result]]:
    """Every file and folder of the image, and of the home folder whose volumes are copies of the image's."""
    root = os.lstat("/").st_dev
    waiting = ["/"]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                yield entry.path, info
                if not stat.S_ISDIR(info.st_mode) or entry.path in NOT_THE_IMAGE:
                    continue
                if info.st_dev == root or entry.path.startswith("/home"):
                    waiting.append(entry.path)


def brought(venv: str) -> set[str]:
    """The files that the distribution's packages and the locked ones list as theirs, without a leading `/usr`."""
    found = set()
    for name in glob.glob("/var/lib/dpkg/info/*.list"):
        with open(name, encoding="utf-8") as file:
            found |= {plain(line.strip()) for line in file}
    for name in glob.glob(f"{venv}/lib/python3.*/site-packages/*.dist-info/RECORD"):
        folder = name.rsplit("/", 2)[0]
        with open(name, encoding="utf-8", newline="") as file:
            found |= {plain(os.path.normpath(f"{folder}/{row[0]}")) for row in csv.reader(file) if row}
    return found


def plain(path: str) -> str:
    """The path of a file of the distribution, wherever its `/bin` is."""
    return path[4:] if path.startswith("/usr/") else path


def look(venv: str) -> dict[str, Any]:
    """One walk over everything; what is found is in lists, sorted."""
    found: dict[str, list[str]] = {"privileged": [], "writable": [], "secrets": [], "libraries": []}
    known = brought(venv)
    for path, info in walk():
        mode = info.st_mode
        if mode & stat.S_IWOTH and not stat.S_ISLNK(mode):
            is_open_folder = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
            found["writable"].append(path + ("/" if is_open_folder else ""))
        if stat.S_ISREG(mode):
            if mode & (stat.S_ISUID | stat.S_ISGID):
                found["privileged"].append(f"{path} {stat.S_IMODE(mode):o}")
            if has_capabilities(path):
                found["privileged"].append(f"{path} (capabilities)")
            if LIBRARY.match(os.path.basename(path)) and "/stubs/" not in path:
                found["libraries"].append(path)
            # What Python compiled says no more than its source.
            is_searched = path.startswith(SEARCHED) or (plain(path) not in known and not path.endswith(".pyc"))
            if is_secret_name(path) or (is_searched and has_secret_text(path, info)):
                found["secrets"].append(path)
    return {name: sorted(paths) for name, paths in found.items()}


def is_secret_name(path: str) -> bool:
    if not SECRET_NAMES.search(path):
        return False
    if path not in PIP_SETTINGS:
        return True
    # The image's own, while it has nothing in it but the image's own setting.
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read() != PIP_SETTINGS[path]


def has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability", follow_symlinks=False))
    except OSError:
        return False


def has_secret_text(path: str, info: os.stat_result) -> bool:
    if info.st_size > SEARCH_LIMIT:
        return False
    with open(path, "rb") as file:
        return bool(SECRET_TEXT.search(file.read()))


def certificates(path: str) -> set[bytes]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return {ssl.PEM_cert_to_DER_cert(text) for text in CERTIFICATE.findall(file.read())}


def authorities() -> dict[str, Any]:
    """Certificates that programs in the image trust, and the distribution's package did not bring."""
    packaged: set[bytes] = set()
    for path in glob.glob("/usr/share/ca-certificates/**/*.crt", recursive=True):
        packaged |= certificates(path)
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    added = certificates(bundle) - packaged if os.path.exists(bundle) else set()
    return {"local": sorted(glob.glob("/usr/local/share/ca-certificates/**/*", recursive=True)), "added": len(added)}


if __name__ == "__main__":
    folder = sys.argv[1]
    give({"look": lambda: look(folder), "authorities": authorities})
