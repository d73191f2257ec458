"""What must not be: rights, secrets, certificates of the builder, open ports."""

from __future__ import annotations

from kit import layout
from kit.verify import expected
from kit.verify.report import Subject
from kit.verify.suite.conftest import Answer, Host, require

# World-writable folders, each sticky: what any user's containers write to.
OPEN_FOLDERS = {f"{folder}/" for folder in (*layout.HOME_DIRS, "/tmp", "/var/tmp", "/run/lock", "/var/lock")}
# 127.0.0.11 as the kernel writes it: in a network of its own a container asks the engine there, at a port of chance.
NAME_SERVER = "0B00007F"
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
)


def test_user(subject: Subject) -> None:
    """Without `--user` it runs as a user other than root, named by number."""
    user = str(subject.config.get("User") or "")
    uid = user.partition(":")[0]
    require(uid.isdecimal(), f"the image's user is `{user or 'root'}`, not a number")
    require(int(uid) != 0, "the image's user is root")


def test_privileges(host: Host) -> None:
    """A container of kit's has no capabilities and can gain none."""
    status = dict(
        line.split(":\t", 1) for line in host.run("cat /proc/self/status").stdout.splitlines() if ":\t" in line
    )
    for name in ("CapEff", "CapPrm", "CapBnd"):
        require(int(status[name], 16) == 0, f"{name} is {status[name]}")
    require(status["NoNewPrivs"] == "1", "a setuid program could gain rights (NoNewPrivs is not set)")


def test_setuid(subject: Subject, files: Answer) -> None:
    """The files with setuid, setgid or capabilities are the distribution's own, each with its own mode."""
    found = [file for file in files.value("look")["privileged"] if file.removeprefix("/usr") not in subject.privileged]
    require(not found, f"more rights than their user's: {', '.join(found[:10])}")


def test_world_writable(files: Answer) -> None:
    """What anyone may write to is the folders for that, and each is sticky."""
    found = [path for path in files.value("look")["writable"] if path not in OPEN_FOLDERS]
    require(not found, f"anyone may write to {', '.join(found[:10])}")


def test_secrets(subject: Subject, files: Answer) -> None:
    """No variable, label or file holds a token, a password or a private key."""
    found = [f"variable {name}" for name in expected.secret_variables(expected.variables(subject.config))]
    found += [f"label {name}" for name in expected.secret_variables(subject.config.get("Labels") or {})]
    found += files.value("look")["secrets"]
    require(not found, f"found in {', '.join(found[:10])}")


def test_ca(subject: Subject, files: Answer) -> None:
    """Programs inside trust the certificate authorities of the distribution, and not the builder's."""
    found = files.value("authorities")
    require(not found["local"], f"certificates were added: {', '.join(found['local'])}")
    require(not found["added"], f"{found['added']} certificates in the system's bundle are not the distribution's")
    named = [name for name in CA_VARIABLES if expected.variables(subject.config).get(name)]
    require(not named, f"the image sets {', '.join(named)}")


def test_ports(subject: Subject, host: Host) -> None:
    """Nothing listens but the service that was started, and the image announces no port but Jupyter's."""
    exposed = sorted(subject.config.get("ExposedPorts") or {})
    require(exposed == [f"{layout.JUPYTER_PORT}/tcp"], f"the image exposes {', '.join(exposed) or 'nothing'}")
    found = listening(host.run("cat /proc/net/tcp /proc/net/tcp6").stdout)
    require(not found, f"something listens on {', '.join(map(str, found))}")


def listening(table: str) -> list[int]:
    """The TCP ports that something listens on, from the kernel's table (state 0A); the engine's name server aside."""
    rows = [line.split() for line in table.splitlines() if ":" in line and "local_address" not in line]
    places = [row[1].rpartition(":") for row in rows if row[3] == "0A"]
    return sorted({int(port, 16) for address, _, port in places if address != NAME_SERVER})
