#!/opt/kit/venv/bin/python -I
"""The Python that pip runs with in an image: that of the user's layer. Afterwards it says what a conflict means.

pip starts it by `python =` in the pip.conf of the image's environment. So a virtual environment of the user's own,
whose pip reads that one's pip.conf, has nothing to do with it.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

LAYER = "/home/kit/.local/venv"
# As pip writes what it cannot change: `The user requested (constraint) torch==2.7.1`.
HELD = re.compile(r"\(constraint\) ([A-Za-z0-9._-]+)((?:[<>=!~]=?)[^\s\\;]*)")
FRAMEWORKS = {"torch": "torch", "tensorflow": "tf", "tensorflow-cpu": "tf"}


def sentences(log):
    """What the conflicts in the log of a pip that failed mean here, one sentence each."""
    conflict = log.rpartition("The conflict is caused by")[2] if "The conflict is caused by" in log else ""
    found = {}
    for name, held in HELD.findall(conflict):
        found[name] = f"{name}{held}"
    return [f"kit: {so_it_is(name, text)}; {instead(name, conflict)}" for name, text in found.items()]


def so_it_is(name, held):
    if name in FRAMEWORKS:
        return f"this image is the one for {held}"
    return f"what this image has needs {held}"


def instead(name, conflict):
    """What to take instead: the image of the release that was asked for, or an environment of the user's own."""
    own = "`python -m venv` makes an environment that is not held to it"
    short = FRAMEWORKS.get(name)
    wanted = re.search(rf"(?<!constraint\) )\b{re.escape(name)}(?:==|~=)(\d+\.\d+)", conflict) if short else None
    if wanted:
        return f"the image for that release is named `{short}{wanted[1]}` (`kit list` has all); {own}"
    return f"{own}, and `kit list` has the other images" if short else own


def run(words):
    """pip, with these arguments of Python's; its exit code."""
    if "install" in words:
        # As much used instructions say it, and all that pip installs here is the user's own.
        words = [word for word in words if word != "--user"]
    python = Path(LAYER, "bin/python")
    if not python.exists():
        sys.exit(f"kit: pip has nowhere to install to: {LAYER} cannot be made")
    with tempfile.TemporaryDirectory(prefix="kit-pip-") as folder:
        log = Path(folder, "log")
        # The log has all that pip says, while its own output stays on the terminal.
        wants_log = {"PIP_LOG": str(log)} if "install" in words else {}
        pip = subprocess.Popen([python, *words], env={**wants_log, **os.environ})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has the same one, and ends
        signal.signal(signal.SIGTERM, lambda *_: pip.terminate())
        code = pip.wait()
        if code and log.exists():
            for sentence in sentences(log.read_text(encoding="utf-8", errors="replace")):
                print(sentence, file=sys.stderr)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
