"""SSH to other machines: one shared connection for each, opened once and used by everything short that kit does there.

OpenSSH's own client does the work (ControlMaster), so keys, agents, jump hosts and names of ~/.ssh/config count as they
do for `ssh`. A shared connection ends by itself when nothing used it for a while; nothing is installed over there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import stat
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path

from kit import files, linux, paths, process
from kit.errors import BadInputError, CommandError, MissingProgramError, NetworkError, UnsupportedHostError
from kit.facts.sockets import CANDIDATES
from kit.frozen import dataclass
from kit.remote import shell
from kit.remote.shell import Shell

# Like Git's GIT_SSH_COMMAND: the ssh program to use, with options (`ssh -F other_config`).
SSH_VARIABLE = "KIT_SSH"
# How long a shared connection stays open with nothing going on in it.
IDLE_S = 600
CONNECT_S = 10
# Somebody may have to type a password, or a second factor.
TYPING_S = 120
# Once ssh is in, the login shell may read what takes its time: conda, modules.
LOGIN_S = 150
# A dead link is noticed after 3 of these seconds.
ALIVE_S = 10
# ssh makes its socket under a name 17 characters longer first.
SOCKET_NAME = len("/control") + 17
_ALIVE = ("-o", f"ServerAliveInterval={ALIVE_S}", "-o", "ServerAliveCountMax=3")
# Whatever the user's configuration says: nothing of this machine is lent to a server, and only kit's commands run.
_SETTINGS: tuple[str, ...] = ("ForwardAgent=no", "ForwardX11=no", "GSSAPIDelegateCredentials=no")
_SETTINGS += ("PermitLocalCommand=no", "Tunnel=no", "RemoteCommand=none", "RequestTTY=no")
_SAFE = tuple(word for setting in _SETTINGS for word in ("-o", setting))
# Forwards that the configuration asks for: none is kit's, and where another login has them already they fail.
_NO_FORWARDS = ("-o", "ClearAllForwardings=yes")

# (part of ssh's text in lower case, what happened, what to do); the first that matches wins.
_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        "remote host identification has changed",
        "its host key is not the one known here",
        "if it was set up anew, `ssh-keygen -R {host}` and log in once with ssh; if not, ask its administrator",
    ),
    (
        "host key verification failed",
        "its host key is not known here",
        "log in once with `ssh {target}` and compare the fingerprint it shows",
    ),
    (
        "could not resolve hostname",
        "there is no machine of that name",
        "check the name; `ssh {target}` must work; ~/.ssh/config may give it an address",
    ),
    ("connection refused", "it refuses the connection", "is sshd running there, and is the port right? `ssh {target}`"),
    (
        "permission denied",
        "it does not let you in",
        "log in without a password first: `ssh-copy-id {target}`, or `ssh-add` for a key with a passphrase",
    ),
    (
        "too many authentication failures",
        "it does not let you in",
        "name the key in ~/.ssh/config (IdentityFile, IdentitiesOnly yes)",
    ),
    ("timed out", "it does not answer", "is it switched on, and is a VPN or a jump host needed? `ssh {target}`"),
    (
        "no answer of the login shell",
        f"you are in, and its login shell has not answered within {LOGIN_S} s",
        "`time ssh {target} true` is the time that its ~/.bashrc, or its like, takes; keep what is for people behind "
        "`case $- in *i*) … ;; esac`",
    ),
    ("not responding", "it does not answer any more", "is it switched on, and is the network up? `ssh {target}`"),
    ("no route to host", "there is no way to it", "is it switched on, and is a VPN or a jump host needed?"),
    ("network is unreachable", "there is no way to it", "is this machine online, and is a VPN needed?"),
    ("bad configuration option", "ssh does not take its configuration", "correct ~/.ssh/config: `ssh {target}`"),
    ("bad owner or permissions", "ssh does not take its configuration", "`chmod 600 ~/.ssh/config`"),
    ("connection closed", "it closed the connection", "`ssh -v {target}` says why"),
    ("closed by remote host", "it closed the connection", "`ssh -v {target}` says why"),
    ("connection reset", "it closed the connection", "`ssh -v {target}` says why"),
    ("broken pipe", "it closed the connection", "the same command connects anew"),
)
_NO_SHELL = "the machine must give a login a POSIX shell: `ssh {target} sh -c true` must work"

# Who we are there, and the sockets of engines that this account may use; the first that answers is taken.
_ACCOUNT_SCRIPT = """
say() { printf '%s\\t%s\\n' "$mark$1" "$2"; }
for group in $(id -G); do say group "$group"; done
getent group $(id -G) 2>/dev/null | while IFS=: read -r name _ group _; do say group-name "$group:$name"; done
say user "$(id -un)"; say uid "$(id -u)"; say gid "$(id -g)"; say home "$HOME"; say hostname "$(hostname)"
socket() {
    # Podman's Docker interface is no way to a GPU, under whatever name.
    case "$(basename "$(readlink -f "$1" 2>/dev/null)")" in podman*) return ;; esac
    if [ -S "$1" ]; then if [ -r "$1" ] && [ -w "$1" ]; then say socket "$1"; else say denied "$1"; fi; fi
}
case "${DOCKER_HOST:-}" in unix://*) socket "${DOCKER_HOST#unix://}" ;; esac
if command -v docker >/dev/null 2>&1 && ! docker --version 2>/dev/null | grep -qi podman; then
    say docker yes
    chosen="$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || true)"
    case "$chosen" in unix://*) socket "${chosen#unix://}" ;; esac
fi
if command -v podman >/dev/null 2>&1; then say podman yes; fi
if [ -d /run/systemd/system ] && [ "$(id -u)" != 0 ] && [ ! -e "/var/lib/systemd/linger/$(id -un)" ]; then
    say ends-at-logout yes
fi
for name in http_proxy https_proxy no_proxy all_proxy; do
    upper="$(echo "$name" | tr a-z A-Z)"
    eval "value=\\"\\${$name:-\\${$upper:-}}\\""
    if [ -n "$value" ]; then say "proxy-$name" "$value"; fi
done
""" + "".join(f"socket {candidate.word()}\n" for candidate in CANDIDATES)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who we are on the machine, read once for each connection."""

    user: str
    uid: int
    gid: int
    home: str
    hostname: str
    sockets: tuple[str, ...] = ()  # of container engines that this account may use, as good as they look from outside
    denied: tuple[str, ...] = ()  # of those it may not use
    has_docker: bool = False
    has_podman: bool = False
    ends_at_logout: bool = False  # what this account runs by itself, as rootless Podman does
    proxies: Mapping[str, str] = field(default_factory=dict)  # by their lower-case names
    groups: tuple[str, ...] = ()  # each as NUMBER:NAME, whose name may be empty


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An open, shared connection to a machine."""

    target: str  # as the user named it
    address: str  # what ssh is given
    folder: Path  # for this user's eyes only: the connection's socket, and sockets forwarded through it
    account: Account

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def shell(self) -> list[str]:
        """The ssh command that goes through the connection, without the address: `rsync -e` takes it joined."""
        return [*_program(), *_through(self.control), *_NO_FORWARDS]

    def command(self, remote: str = "", *options: str) -> list[str]:
        """The ssh command that runs `remote`, in the login shell there, through the connection."""
        return [*self.shell(), *options, self.address, *([remote] if remote else [])]

    def run(
        self,
        script: str,
        *,
        arguments: Sequence[str] = (),
        input: str | bytes | None = None,
        timeout_s: float = 60,
        check: bool = True,
        stays: bool = False,
    ) -> process.Completed:
        """Run a POSIX shell script there and return what it printed; `input` is on its standard input. `stays`: it runs
        in the shell that this process keeps there, without input, and what it opens as 9 stays open until `rest`.

        Raises CommandError when `check` and it fails, NetworkError when ssh itself does.
        """
        try:
            done = self.ask(script, arguments=arguments, input=input, timeout_s=timeout_s, stays=stays)
        except CommandError as e:
            raise failure(self.target, e.returncode, _said(e), doing="used") from None
        if check and done.returncode != 0:
            raise CommandError((self.target, "sh", *arguments), done.returncode, done.stdout, done.stderr)
        return done

    def ask(
        self,
        script: str,
        *,
        arguments: Sequence[str] = (),
        input: str | bytes | None = None,
        timeout_s: float = 60,
        stays: bool = False,
    ) -> process.Completed:
        """As `run`, whatever the script's exit code is. Raises CommandError when it does not come to its end: with 124
        when the time is up, else with what ssh says.
        """
        if input is not None and len(input) > shell.LONGEST_INPUT:
            remote = " ".join(["sh", "-c", shlex.quote(script), "sh", *map(shlex.quote, arguments)])
            command = self.command(remote, "-T")
            done = process.run(command, input=input, env={"LC_ALL": "C"}, timeout_s=timeout_s, check=False)
            if done.returncode == 255:
                raise CommandError(done.args, 255, done.stdout, done.stderr)
            return done
        return self.kept_shell().run(script, arguments, input, timeout_s, stays=stays)

    def kept_shell(self) -> Shell:
        """The shell there that all short things of this process share. Raises CommandError as its start does."""
        if self.has_shell:
            return _shells[self.control]
        _shells[self.control] = Shell(self.command("sh -s", "-T"), patience=_patience(self.control, asks=False))
        return _shells[self.control]

    @property
    def has_shell(self) -> bool:
        """Whether this process keeps a shell there."""
        found = _shells.get(self.control)
        return found is not None and found.is_running

    def rest(self) -> None:
        """End the shell there, which takes one of the few sessions of the connection, for a long time of nothing."""
        if found := _shells.pop(self.control, None):
            found.end()

    def ping(self, timeout_s: float) -> None:
        """Raises NetworkError when the machine does not answer within so many seconds. Nobody logs in there."""
        # A connection that the machine has to refuse, or to make.
        command = [*self.shell(), "-W", "127.0.0.1:9", self.address]
        try:
            done = process.run(command, env={"LC_ALL": "C"}, timeout_s=timeout_s, check=False)
        except CommandError as e:
            raise failure(self.target, e.returncode, _said(e), doing="used") from None
        said = done.stderr.strip().lower()
        if done.returncode == 255 and said and not re.search("open failed|stdio forwarding|refused by peer", said):
            raise failure(self.target, 255, done.stderr, doing="used")

    def control_command(self, verb: str, *options: str, timeout_s: float = 10) -> bool:
        """Ask the connection's own process for something (`forward`, `cancel`, `exit`); False when it refuses."""
        try:
            command = [*_program(), *_through(self.control), "-O", verb, *options, self.address]
            done = process.run(command, timeout_s=timeout_s, check=False)
        except CommandError:
            return False
        return done.returncode == 0


# By the socket of the connection they go through.
_shells: dict[Path, Shell] = {}


def rest_all() -> None:
    """End the shells that this process keeps on other machines."""
    while _shells:
        _shells.popitem()[1].end()


def _patience(control: Path, *, asks: bool) -> Callable[[], float]:
    """How long a login may take from now on, in seconds: where nobody answers less than where one is in."""
    begun = time.monotonic()

    def left() -> float:
        limit = LOGIN_S if control.exists() else TYPING_S if asks else CONNECT_S + 20
        return begun + limit - time.monotonic()

    return left


def _program() -> list[str]:
    return shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"]


def _through(control: Path) -> list[str]:
    # The command line counts before ~/.ssh/config, which may have ControlMaster settings of its own. Should the shared
    # connection be gone, ssh makes one for this command alone.
    options = ["-o", "ControlMaster=no", "-o", f"ControlPath={control}", "-o", "BatchMode=yes"]
    return [*_SAFE, *options, "-o", f"ConnectTimeout={CONNECT_S}"]


def own_command(target: str, *options: str) -> list[str]:
    """An ssh command with a connection of its own, that nobody is asked anything by: for what must live by itself."""
    quiet = ["-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    return [*_program(), *_SAFE, *quiet, "-o", f"ConnectTimeout={CONNECT_S}", *options, resolve_target(target)]


def is_connected(target: str) -> bool:
    """Whether the shared connection to a machine is open."""
    address = resolve_target(target)
    return _open_one(target, address, _folder(address)) is not None


def shared_command(target: str, *options: str) -> list[str]:
    """An ssh command that goes through the shared connection or nowhere: for a machine that asks at every login."""
    address = resolve_target(target)
    # Without the connection ssh would log in anew, and be refused each time.
    return [*_program(), *_through(_folder(address) / "control"), "-o", "ProxyCommand=false", *options, address]


def is_refusal(text: str) -> bool:
    """True when ssh says that nobody gets in who cannot be asked for a password."""
    return any(part in text.lower() for part in ("permission denied", "too many authentication failures"))


def connect(target: str, *, may_ask: bool | None = None) -> Connection:
    """The shared connection to a machine, opened first when it is not.

    `may_ask`: whether ssh may ask for a password; None: when this is a terminal. Raises NetworkError when the machine
    cannot be reached, BadInputError when `target` is none, MissingProgramError without ssh.
    """
    address = resolve_target(target)
    folder = _folder(address)
    if connection := _open_one(target, address, folder):
        return connection
    with files.locked(folder / "lock"):
        # Another kit process may have opened it meanwhile.
        if connection := _open_one(target, address, folder):
            return connection
        asks = may_ask if may_ask is not None else sys.stdin.isatty() and sys.stderr.isatty()
        try:
            return _open(target, address, _folder(address), asks)
        except BaseException:
            _forget(folder)
            raise


def close(target: str) -> bool:
    """End the shared connection to a machine; False when there was none."""
    address = resolve_target(target)
    folder = _folder(address)
    connection = _open_one(target, address, folder)
    if connection:
        connection.rest()
    is_ended = connection is not None and connection.control_command("exit")
    _forget(folder)
    return is_ended


def close_all() -> int:
    """End every shared connection made with this configuration of ssh; how many there were."""
    ended = 0
    for folder in (f for parent in _parents() if parent.is_dir() for f in parent.iterdir()):
        try:
            mark = json.loads((folder / "account.json").read_text(encoding="utf-8"))["mark"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        address = str(mark).partition("\0")[0]
        if mark == _mark(address):
            ended += close(address)
    return ended


def _parents() -> list[Path]:
    """Where the folders of connections may be, the best first."""
    runtime, own = os.environ.get("XDG_RUNTIME_DIR", ""), f"kit-{os.getuid()}"
    found = [Path(runtime) / "kit"] if runtime.startswith("/") and Path(runtime).is_dir() else []
    return [*found, Path(os.environ.get("TMPDIR") or "/tmp") / own, Path("/tmp") / own]


def _folder(address: str) -> Path:
    """The folder of the connection to an address, made when it is not there."""
    return private_folder(f"{re.sub('[^A-Za-z0-9]+', '-', address)[-12:]}-{zlib.crc32(_mark(address).encode()):08x}")


def private_folder(name: str) -> Path:
    """A folder for sockets, whose paths are short, made when it is not there; nobody else can look into it.

    Raises UnsupportedHostError when something of somebody else's is in its place.
    """
    parents = _parents()
    parent = next((p for p in parents if len(str(p / name)) + SOCKET_NAME <= linux.longest_socket()), parents[-1])
    for folder in (parent, parent / name):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise UnsupportedHostError(
                f"{folder} is not a folder of yours alone, so kit keeps no connection in it",
                hint=f"`ls -ld {folder}` shows it; remove it, or set XDG_RUNTIME_DIR to a folder of yours",
            )
    return parent / name


def remove_folder(name: str) -> None:
    """Remove what `private_folder` made, with the sockets in it."""
    for folder in (parent / name for parent in _parents()):
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            _forget(folder)


def _mark(address: str) -> str:
    """What tells connections apart: the same name may be another machine in another configuration of ssh."""
    return "\0".join((address, os.environ.get(SSH_VARIABLE, ""), str(paths.home())))


def _open_one(target: str, address: str, folder: Path) -> Connection | None:
    """The connection that is open already; None when there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(folder / "control"))
        except OSError:
            return None
    try:
        raw = json.loads((folder / "account.json").read_text(encoding="utf-8"))
        if raw.pop("mark") != _mark(address):
            return None  # the folder's name is short: another one's
        account = Account(
            **{**raw, "sockets": tuple(raw["sockets"]), "denied": tuple(raw["denied"]), "groups": tuple(raw["groups"])}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Connection(target=target, address=address, folder=folder, account=account)


def _open(target: str, address: str, folder: Path, asks: bool) -> Connection:
    control = folder / "control"
    mark = f"@@{os.urandom(8).hex()}"
    exits = [*_program(), *_through(control), "-O", "exit", address]
    # One that answers no more, or of which it is not known whose it is.
    _shells.pop(control, None)
    if control.exists():
        with contextlib.suppress(CommandError, MissingProgramError):
            process.run(exits, timeout_s=10, check=False)
    for left in ("control", "engine.sock", "account.json"):
        (folder / left).unlink(missing_ok=True)
    options = ["-o", "ControlMaster=yes", "-o", f"ControlPath={control}", "-o", f"ControlPersist={IDLE_S}", *_ALIVE]
    options += ["-o", f"ConnectTimeout={CONNECT_S}", "-o", "StreamLocalBindUnlink=yes", "-T"]
    options += [*_SAFE, *_NO_FORWARDS, "-o", f"BatchMode={'no' if asks else 'yes'}"]
    try:
        made = Shell(
            [*_program(), *options, address, "sh -s"], on_terminal=asks, patience=_patience(control, asks=asks)
        )
        done = made.run(f"mark={mark}\n{_ACCOUNT_SCRIPT}", (), None, 60)
    except CommandError as e:
        is_in = e.returncode == shell.TIMED_OUT and control.exists()
        if control.exists():
            with contextlib.suppress(CommandError):
                process.run(exits, timeout_s=10, check=False)
        text = "no answer of the login shell" if is_in else f"{_said(e)}\n{e.stdout}"
        raise failure(target, e.returncode, text) from None
    except MissingProgramError:
        raise MissingProgramError(
            f"--host {target} needs the program `{_program()[0]}`, which is not installed",
            hint="install the OpenSSH client (package openssh-client or openssh-clients)",
        ) from None
    account = parse_account(done.stdout, mark)
    if account is None:
        made.end()
        raise failure(target, done.returncode, f"{done.stderr}\n{done.stdout}")
    _shells[control] = made
    paths.write_text(folder / "account.json", json.dumps({**asdict(account), "mark": _mark(address)}), mode=0o600)
    return Connection(target=target, address=address, folder=folder, account=account)


def _said(error: CommandError) -> str:
    """Why a program was ended."""
    return "the command timed out" if error.returncode == 124 else error.stderr


def _forget(folder: Path) -> None:
    """Remove the folder of a connection that is not there; another process that is just making it makes it again."""
    for file in folder.glob("*"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


_ID = re.compile(r"[0-9]{1,10}")


def parse_account(text: str, mark: str) -> Account | None:
    """The account from what the script printed, between whatever a login prints; None when it is not there."""
    rows = [line.removeprefix(mark).split("\t", 1) for line in text.splitlines() if line.startswith(mark)]
    pairs = [(row[0], row[1]) for row in rows if len(row) == 2]
    found = dict(pairs)
    if not found.get("home", "").startswith("/") or not all(_ID.fullmatch(found.get(n, "")) for n in ("uid", "gid")):
        return None
    names = dict(value.partition(":")[::2] for name, value in pairs if name == "group-name")
    return Account(
        user=found.get("user", ""),
        uid=int(found["uid"]),
        gid=int(found["gid"]),
        home=found["home"],
        hostname=found.get("hostname", ""),
        sockets=tuple(dict.fromkeys(value for name, value in pairs if name == "socket")),
        denied=tuple(dict.fromkeys(value for name, value in pairs if name == "denied")),
        has_docker="docker" in found,
        has_podman="podman" in found,
        ends_at_logout="ends-at-logout" in found,
        proxies={name.removeprefix("proxy-"): value for name, value in pairs if name.startswith("proxy-")},
        groups=tuple(
            f"{value}:{names.get(value, '')}" for name, value in pairs if name == "group" and _ID.fullmatch(value)
        ),
    )


def resolve_target(target: str) -> str:
    """What ssh is given: the target as it is, or the address of the docker context of that name.

    Raises BadInputError for what is not text, and when ssh could take it for an option, or a shell for a command: that
    of a ProxyCommand, or of who copies a hint.
    """
    odd = r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff'\"`$;&<>|(){}]|@-"
    if target.startswith("-") or not target.strip() or re.search(odd, target):
        raise BadInputError(
            f"--host {target!r} is no machine", hint="give user@server, a name of ~/.ssh/config, or a docker context"
        )
    if re.search(r"[@:/]", target):
        return target
    endpoint = context_endpoint(target)
    if not endpoint.startswith("ssh://"):
        return target
    # ssh takes no path behind the machine, docker does (the socket there).
    return "ssh://" + endpoint.removeprefix("ssh://").partition("/")[0]


def context_endpoint(name: str) -> str:
    """The address that a docker context of this name has, from docker's own files; empty when there is none.

    Without starting docker, which takes longer than the whole of a warm `kit --host H ps` may. Where they are:
    docker/cli, cli/context/store.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or paths.home() / ".docker") / "contexts" / "meta"
    if not folder.is_dir():
        return ""
    import hashlib

    file = folder / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    try:
        endpoint = json.loads(file.read_text(encoding="utf-8"))["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return endpoint if isinstance(endpoint, str) else ""


def failure(target: str, code: int, text: str, *, doing: str = "reached") -> NetworkError:
    """What ssh printed, as an error with its cause and what to do."""
    host = target.removeprefix("ssh://").rpartition("@")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what, hint = "it ran no shell for us", _NO_SHELL
    # ssh's own failure; any other code is that of what ran there.
    if code in (124, 255):
        known = ((what, hint) for part, what, hint in _FAILURES if part in text.lower())
        what, hint = next(known, ("ssh failed", "`ssh -v {target}` says why"))
    return NetworkError(
        f"{target} cannot be {doing} over SSH: {what}",
        hint=hint.format(target=target, host=host),
        details=tuple(line for line in lines if not line.startswith("@@@"))[-4:],
    )
