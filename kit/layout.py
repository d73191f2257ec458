"""Where things are inside an image: the agreement between the templates that build it and `kit run` that starts it."""

from __future__ import annotations

import re

from kit.frozen import dataclass

UID = 1000
USER = "kit"  # the name of whoever is not root
HOME = "/home/kit"
VENV = "/opt/kit/venv"
CONSTRAINTS = "/opt/kit/constraints.txt"
# The environment on top of it that `pip install` in a container installs to, and the Python that pip is started with.
USER_VENV = f"{HOME}/.local/venv"
PIP_PYTHON = "/opt/kit/pip-python"
ENTRYPOINT = "/opt/kit/run"
WORKSPACE = "/workspace"
CA_FILE = "/run/kit/ca.crt"
PASSWD_FILE = "/etc/passwd"
GROUP_FILE = "/etc/group"
JUPYTER_PORT = 8888
TENSORBOARD_PORT = 6006
# The variable that a service has its token in.
TOKEN = "JUPYTER_TOKEN"
# The path below which JupyterLab answers, where it is another than `/`: for the health check, and for `kit url`.
BASE_URL = "KIT_BASE_URL"
# Where %tensorboard has the browser look, below that path: its own address leads nowhere outside the container.
TENSORBOARD_PROXY, PROXY_PATH = "TENSORBOARD_PROXY_URL", "/proxy/%PORT%/"
# Of the networks that engines know, the two that are none: this machine's own, and nothing but the loopback.
HOST_NETWORK, NO_NETWORK = "host", "none"


def port_of(service: str | None) -> int:
    """Where a service listens inside, and what the search for a port outside begins with."""
    return TENSORBOARD_PORT if service == "tensorboard" else JUPYTER_PORT


def jupyter_command(uid: int, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What a container runs for JupyterLab as this user; `options` are the server's own, and count before kit's."""
    own = (
        f"--ServerApp.root_dir={WORKSPACE}",
        # A page of somebody else's whose name leads here (DNS rebinding) asks under that name.
        "--ServerApp.allow_remote_access=False",
    )
    named = {option.partition("=")[0] for option in options}
    command = (
        *("jupyter", "lab", "--ip=0.0.0.0", f"--port={JUPYTER_PORT}", "--no-browser"),
        *(option for option in own if option.partition("=")[0] not in named),
    )
    # Root only when the caller is root; the server refuses it otherwise and would never answer.
    return (*command, *(("--allow-root",) if uid == 0 else ()), *options)


def base_url(options: tuple[str, ...]) -> str:
    """The path of JupyterLab that its options name, with a `/` at both ends; empty without one."""
    found = [value for name, _, value in (o.partition("=") for o in options) if re.fullmatch(r"--\w+\.base_url", name)]
    path = found[-1].strip("/") if found else ""
    return f"/{path}/" if path else ""


@dataclass(frozen=True, kw_only=True)
class HomeVolume:
    """A folder of the home directory that outlives the container, in a named volume of its user and project."""

    name: str
    path: str
    per_image: bool = False  # what `pip install` adds fits one image's Python and lock only


# Of one project each: whoever may write to the home folder decides what runs there (a shell's and IPython's startup
# files, ~/.local, the code in the caches of pip and PyTorch Hub), and another project's container is somebody else.
VOLUMES: tuple[HomeVolume, ...] = (
    HomeVolume(name="home", path=HOME),
    HomeVolume(name="local", path=f"{HOME}/.local", per_image=True),
)
# What the driver compiled for a GPU takes minutes to compile again.
CUDA_CACHE = f"{HOME}/.cache/cuda"
HOME_DIRS: tuple[str, ...] = (
    HOME,
    f"{HOME}/.cache",
    f"{HOME}/.local",
    *(f"{HOME}/.cache/{name}" for name in ("pip", "huggingface", "torch")),
    f"{HOME}/.keras",
    CUDA_CACHE,
    WORKSPACE,
)
# Where kit mounts something of its own. What the user mounts at a volume's place is there instead of it.
MOUNT_POINTS = (WORKSPACE, PASSWD_FILE, GROUP_FILE, CA_FILE)
# JupyterLab asks its makers for news and newer versions unless it is told not to; what is locked stays as it is.
LAB_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
# The formats of "Save and Export" that cannot be written here: a browser or TeX, which no image has, makes the PDF, and
# pandoc the text of the others. A format that its user made possible is switched on in a file of the user's own.
EXPORTERS_OFF = (
    "ASCIIDocExporter",
    "LatexExporter",
    "PDFExporter",
    "QtPDFExporter",
    "QtPNGExporter",
    "RSTExporter",
    "WebPDFExporter",
)
SERVER_SETTINGS = {exporter: {"enabled": False} for exporter in EXPORTERS_OFF}
# Beside C.UTF-8, which is what programs speak unless they are told another.
LOCALES = ("en_US.UTF-8", "zh_CN.UTF-8")
# matplotlib's own DejaVu Sans has no Chinese, Japanese or Korean: what it lacks is drawn in this one, which the
# distribution's package fonts-wqy-microhei has.
CJK_FONT = "WenQuanYi Micro Hei"
# Login shells begin with the distribution's PATH, and this file.
PROFILE_FILE = "/etc/profile.d/kit.sh"
