"""The user's layer: a virtual environment in the home folder, where `pip install` in a container installs to.

It stands on the image's own environment, and belongs to the user: what is newer or older in it takes the place of the
image's, and what is uninstalled from it is gone. `kit.pth` calls `start` in every Python of the image's environment, so
that the layer is there before the first `pip install` (a Python that runs already can then import what that adds), and
on whatever is mounted at the home folder.
"""
# Strings and not paths: every Python starts with this.
# ruff: noqa: PTH100, PTH103, PTH105, PTH110, PTH118, PTH120, PTH123, PTH211

import os
import site
import sys

# Programs that stay as they are locked: with an older tornado in the layer there would be no notebook to remove it in.
SERVERS = "jupyter"


def start(layer, constraints):
    """Make the layer if it is not there, and put its packages into sys.path."""
    if sys.flags.no_user_site:
        return
    packages = os.path.join(layer, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    image = os.path.dirname(os.path.abspath(__file__))
    try:
        make(layer, packages, image, constraints)
    except OSError:
        return  # a home folder that cannot be written to: there is no layer, and pip says so
    count = len(sys.path)
    site.addsitedir(packages)
    added, sys.path[count:] = sys.path[count:], []
    first = sys.path.index(image) if image in sys.path else count
    if is_server(sys.argv[0] if getattr(sys, "argv", None) else ""):
        first = count
    sys.path[first:first] = added


def is_server(program):
    """Whether Python was started for one of the image's own programs that serve notebooks."""
    folder, name = os.path.split(os.path.abspath(program))
    return folder == os.path.join(sys.prefix, "bin") and name.startswith(SERVERS)


def make(layer, packages, image, constraints):
    """A virtual environment as `python -m venv` makes one, with the image's packages below its own."""
    last = os.path.join(packages, "kit.pth")
    if os.path.exists(last):
        return
    programs = os.path.join(layer, "bin")
    os.makedirs(packages, exist_ok=True)
    os.makedirs(programs, exist_ok=True)
    base = getattr(sys, "_base_executable", "") or os.path.realpath(sys.executable)
    for name in ("python", "python3"):
        try:
            os.symlink(base, os.path.join(programs, name))
        except FileExistsError:  # another Python was faster
            continue
    home = os.path.dirname(base)
    write(os.path.join(layer, "pyvenv.cfg"), f"home = {home}\ninclude-system-site-packages = true\n")
    write(os.path.join(layer, "pip.conf"), f"[global]\nconstraint = {constraints}\n")
    write(last, image + "\n")


def write(path, text):
    """Whole or not at all, since other Pythons start meanwhile."""
    own = f"{path}.{os.getpid()}"
    with open(own, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(own, path)
