"""A container as `kit run` starts it."""

from __future__ import annotations

import pytest

from kit import layout
from kit.verify.report import Subject
from kit.verify.suite.conftest import Fact, Host, require

PROGRAMS = (
    "git --version",
    "curl --version",
    "wget --version",
    "less --version",
    "nano --version",
    "vi --version",
    "ps -e",
    "unzip -v",
    "rsync --version",
)


def test_volumes(host: Host, fact: Fact) -> None:
    """The workspace, the home and the caches can be written to, as the user it runs as."""
    folders = (layout.WORKSPACE, *layout.HOME_DIRS)
    tries = [f'{{ f=$(mktemp {folder}/kit.XXXXXX) && rm "$f"; }} 2>/dev/null || echo {folder}' for folder in folders]
    failed = host.run("; ".join(tries)).stdout.split()
    require(not failed, f"cannot be written to: {', '.join(failed)}")
    fact(f"{len(folders)} folders")


def test_shared_memory(subject: Subject, host: Host, fact: Fact) -> None:
    """/dev/shm is as large as kit gives it; docker's own 64 MB end DataLoaders with a bus error."""
    size = int(host.check_output("df --output=size --block-size=1 /dev/shm").split()[-1])
    require(abs(size - subject.shm_bytes) < 2**20, f"{size} bytes, and {subject.shm_bytes} are promised")
    fact(f"{size / 2**30:.1f} GiB")


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_login_shell(host: Host, shell: str) -> None:
    """A login shell has the image's programs, as VS Code and dev containers ask for them."""
    found = host.run("%s -lc 'command -v python; command -v pip'", shell).stdout.split()
    there = [f"{layout.VENV}/bin/{program}" for program in ("python", "pip")]
    require(found[-2:] == there, f"python and pip are {' and '.join(found) or 'not found'}")


def test_programs(host: Host, fact: Fact) -> None:
    """The programs of a day's work are there and start."""
    tries = [f"{{ {program} >/dev/null 2>&1 || echo {program.split()[0]}; }}" for program in PROGRAMS]
    failed = host.run("; ".join(tries)).stdout.split()
    require(not failed, f"missing, or they do not start: {', '.join(failed)}")
    fact(f"{len(PROGRAMS)} programs")


def test_locales(host: Host) -> None:
    """The locales that are promised are there, and the time zones."""
    failed = [name for name in layout.LOCALES if host.run("LC_ALL=%s locale charmap", name).stdout.strip() != "UTF-8"]
    require(not failed, f"missing: {', '.join(failed)}")
    zone = host.run("TZ=Asia/Shanghai date +%z").stdout.strip()
    require(zone == "+0800", f"in Shanghai clocks are {zone} ahead")


def test_own_environment(host: Host) -> None:
    """A virtual environment of one's own can be made, with pip in it."""
    done = host.run('d=$(mktemp -d) && python -m venv "$d/v" && "$d/v/bin/pip" --version; c=$?; rm -rf "$d"; exit $c')
    require(done.rc == 0, (done.stderr or done.stdout)[-800:])


def test_cuda_cache(subject: Subject, host: Host) -> None:
    """Kernels compiled from PTX outlive the container: their cache is on a volume that can be written to."""
    if not subject.image.is_gpu:
        pytest.skip("the image is built for the CPU")
    folder = host.environment().get("CUDA_CACHE_PATH", "")
    require(folder, "CUDA_CACHE_PATH is not set")
    mounts = [line.split()[1] for line in host.check_output("cat /proc/self/mounts").splitlines()]
    require(folder in mounts, f"{folder} is no volume")
    require(host.run('f=$(mktemp %s/kit.XXXXXX) && rm "$f"', folder).rc == 0, f"{folder} cannot be written to")
