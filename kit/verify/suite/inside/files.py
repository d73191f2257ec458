"""Inside, as root: files with rights they should not have, secrets, certificates, and CUDA's libraries."""
# mypy: disable-error-code="import-not-found"
# Strings and not paths: over fifty thousand files those cost seconds.
# ruff: noqa: PTH110, PTH119, PTH123, PTH207

from __future__ import annotations

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
    |\.kube/config|\.ssh/id_[a-z0-9]+|\.huggingface/token|huggingface/token|\.wandb|kaggle\.json|\.env)$""",
    re.VERBOSE,
)
PIP_SETTINGS = "[install]\nuser = true\n"
SECRET_TEXT = re.compile(
    rb"""-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----|://[^/\s:@]+:[^/\s:@]+@|\bAKIA[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}
    |\bgh[pousr]_[A-Za-z0-9]{36}|"(argon2|sha1|sha256):[^"]{20,}\"""",
    re.VERBOSE,
)
# Here text is searched too; the rest is what packages brought, whose hashes are in the lock or the archive's.
SEARCHED = (
    "/root",
    "/home",
    "/etc",
    "/opt",
    "/srv",
    "/tmp",
    "/var/tmp",
    "/workspace",
    "/usr/local/etc",
    "/usr/local/share",
)
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


def is_searched(path: str, venv: str) -> bool:
    return path.startswith(SEARCHED) and not path.startswith(venv + "/lib")


def distribution_files() -> set[str]:
    """The files of the distribution's required packages: of all files, these alone may carry setuid."""
    with open("/var/lib/dpkg/status", encoding="utf-8", errors="replace") as file:
        blocks = file.read().split("\n\n")
    found = set()
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Priority") == "required" or fields.get("Essential") == "yes":
            for name in glob.glob(f"/var/lib/dpkg/info/{fields['Package']}*.list"):
                with open(name, encoding="utf-8") as file:
                    found |= {os.path.realpath(line.strip()) for line in file if "bin/" in line or "lib" in line}
    return found


def look(venv: str) -> dict[str, Any]:
    """One walk over everything; what is found is in lists, sorted."""
    found: dict[str, list[str]] = {"privileged": [], "writable": [], "secrets": [], "libraries": []}
    privileged = []
    for path, info in walk():
        mode = info.st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            privileged.append(path)
        if mode & stat.S_IWOTH and not stat.S_ISLNK(mode):
            is_open_folder = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
            found["writable"].append(path + ("/" if is_open_folder else ""))
        if stat.S_ISREG(mode):
            if has_capabilities(path):
                found["privileged"].append(f"{path} (capabilities)")
            if LIBRARY.match(os.path.basename(path)) and "/stubs/" not in path:
                found["libraries"].append(path)
            if is_searched(path, venv) and (is_secret_name(path, venv) or has_secret_text(path, info)):
                found["secrets"].append(path)
    allowed = distribution_files() if privileged else set()
    found["privileged"] += [path for path in privileged if os.path.realpath(path) not in allowed]
    return {name: sorted(paths) for name, paths in found.items()}


def is_secret_name(path: str, venv: str) -> bool:
    if not SECRET_NAMES.search(path):
        return False
    if path != f"{venv}/pip.conf":
        return True
    # The image's own, while it has nothing in it but the image's own setting.
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read() != PIP_SETTINGS


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
