"""Where things are inside an image: the agreement between the templates that build it and `kit run` that starts it."""

from __future__ import annotations

from kit.frozen import dataclass

UID = 1000
HOME = "/home/kit"
VENV = "/opt/kit/venv"
CONSTRAINTS = "/opt/kit/constraints.txt"
WORKSPACE = "/workspace"
CA_FILE = "/run/kit/ca.crt"
PASSWD_FILE = "/etc/passwd"
JUPYTER_PORT = 8888
TENSORBOARD_PORT = 6006


def port_of(service: str | None) -> int:
    """Where a service listens inside, and what the search for a port outside begins with."""
    return TENSORBOARD_PORT if service == "tensorboard" else JUPYTER_PORT


def jupyter_command(uid: int) -> tuple[str, ...]:
    """What a container runs for JupyterLab as this user."""
    command = (
        "jupyter",
        "lab",
        "--ip=0.0.0.0",
        f"--port={JUPYTER_PORT}",
        "--no-browser",
        f"--ServerApp.root_dir={WORKSPACE}",
    )
    # Root only when the caller is root; the server refuses it otherwise and would never answer.
    return (*command, "--allow-root") if uid == 0 else command


@dataclass(frozen=True, kw_only=True)
class HomeVolume:
    """A folder of the home directory that outlives the container, in a named volume of its user."""

    name: str
    path: str
    per_image: bool = False  # what `pip install` adds fits one image's Python and lock only


VOLUMES: tuple[HomeVolume, ...] = (
    HomeVolume(name="home", path=HOME),
    HomeVolume(name="local", path=f"{HOME}/.local", per_image=True),
    HomeVolume(name="pip", path=f"{HOME}/.cache/pip"),
    HomeVolume(name="huggingface", path=f"{HOME}/.cache/huggingface"),
    HomeVolume(name="torch", path=f"{HOME}/.cache/torch"),
    HomeVolume(name="keras", path=f"{HOME}/.keras"),
    HomeVolume(name="cuda", path=f"{HOME}/.cache/cuda"),
)
HOME_DIRS: tuple[str, ...] = (HOME, f"{HOME}/.cache", *(v.path for v in VOLUMES[1:]), WORKSPACE)
# JupyterLab asks its makers for news and newer versions unless it is told not to; what is locked stays as it is.
LAB_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
