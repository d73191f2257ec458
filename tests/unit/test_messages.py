"""The texts are what Docker 28.5 (others where noted) really prints; recorded with kit's private engine."""

# ruff: noqa: E501  # recorded texts are easier to compare in one piece

import pytest

from kit.engine.messages import KNOWN, REGISTRY, recognise, translate
from kit.errors import (
    BadInputError,
    BaseNotFoundError,
    CommandError,
    DiskFullError,
    EngineDeniedError,
    EngineError,
    GpuUnavailableError,
    NetworkError,
    NoEngineError,
    NoSuchContainerError,
    PortTakenError,
)

TEXTS = [
    (
        "Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?",
        NoEngineError,
    ),
    (
        "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?",
        NoEngineError,
    ),
    (
        'error during connect: Get "http://docker.example.com/v1.51/containers/json": command [ssh -l nobody -T -- '
        "127.0.0.1 docker system dial-stdio] has exited with exit status 255, make sure the URL is valid",
        NoEngineError,
    ),
    (
        'error during connect: Get "http://nosuchhost.invalid:2375/v1.51/containers/json": dial tcp: lookup '
        "nosuchhost.invalid on 10.255.255.53:53: no such host",
        NoEngineError,
    ),
    (
        'Failed to initialize: unable to resolve docker endpoint: context "nothere": context not found: open '
        "/root/.docker/contexts/meta/8a31/meta.json: no such file or directory",
        NoEngineError,
    ),
    (
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
        '"http://%2Fvar%2Frun%2Fdocker.sock/v1.51/containers/json": dial unix: connect: permission denied',
        EngineDeniedError,
    ),
    (
        "docker: Error response from daemon: failed to set up container networking: driver failed programming external "
        "connectivity on endpoint x (eb7f): Bind for 127.0.0.1:5995 failed: port is already allocated",
        PortTakenError,
    ),
    (
        "docker: Error response from daemon: failed to set up container networking: driver failed programming external "
        "connectivity on endpoint x (eb7f): failed to bind host port for 127.0.0.1:5996:172.31.0.2:80/tcp: address already "
        "in use",
        PortTakenError,
    ),
    (
        "docker: Error response from daemon: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=9",
        GpuUnavailableError,
    ),
    (
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]]',
        GpuUnavailableError,
    ),
    ("Error response from daemon: No such container: nothing-here", NoSuchContainerError),
    ("Error: No such container: nothing-here", NoSuchContainerError),  # Docker 24's `docker inspect`
    ("write /var/lib/docker/overlay2/x/diff/y: no space left on device", DiskFullError),
    ("cp: error writing '/scratch/a': No space left on device", DiskFullError),
    ("docker: Error response from daemon: unknown or invalid runtime name: nvidia", EngineError),
    ("docker: Error response from daemon: No such image: kit/none:latest", EngineError),
    (
        'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /n/x',
        EngineError,
    ),
    ("docker: Error response from daemon: failed to set up container networking: network lab not found", BadInputError),
    ("Error: unable to find network with name or ID lab: network not found", BadInputError),
    (
        'docker: Error response from daemon: Conflict. The container name "/a" is already in use by container "b". You have '
        "to remove (or rename) that container to be able to reuse that name.",
        BadInputError,
    ),
    (
        "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
        'create failed: runc create failed: unable to start container process: exec: "nonesuch": executable file not found '
        "in $PATH",
        EngineError,
    ),
    (
        'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /x',
        EngineError,
    ),
]


@pytest.mark.parametrize(("text", "kind"), TEXTS, ids=[f"{kind.__name__}-{i}" for i, (_, kind) in enumerate(TEXTS)])
def test_the_engines_texts_become_kinds_of_errors(text, kind):
    error = translate(CommandError(("docker", "x"), 1, "", f"{text}\n\nRun 'docker run --help' for more information\n"))
    assert type(error) is kind
    assert text in error.details, "the engine's own words are always shown"
    if kind is not EngineError:
        assert error.hint, "a known error says what to do next"


def test_an_unknown_text_is_kept_with_the_command_and_its_last_lines():
    error = translate(CommandError(("docker", "x"), 9, "", "\n".join(f"line {n}" for n in range(20))))
    assert type(error) is EngineError
    assert error.message == "`docker x` failed with exit code 9"
    assert error.details == tuple(f"line {n}" for n in range(12, 20))


def test_standard_output_is_read_when_there_is_nothing_on_standard_error():
    assert type(translate(CommandError(("x",), 1, "port is already allocated", " \n"))) is PortTakenError


REGISTRY_TEXTS = [
    ("ERROR: 127.0.0.1:5997/nvidia/cuda:12.6.3-base: not found", BaseNotFoundError),
    (
        "docker.io/nvidia/cuda:x: failed to resolve source metadata for docker.io/nvidia/cuda:x: manifest unknown",
        BaseNotFoundError,
    ),
    (
        "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope",
        BaseNotFoundError,
    ),
    (
        'ERROR: failed to do request: Head "http://127.0.0.1:5998/v2/nvidia/cuda/manifests/1": dial tcp 127.0.0.1:5998: '
        "connect: connection refused",
        NetworkError,
    ),
    (
        'ERROR: failed to do request: Head "https://registry-1.docker.io/v2/nvidia/cuda/manifests/x": dial tcp: lookup '
        "registry-1.docker.io on 10.255.255.53:53: no such host",
        NetworkError,
    ),
    (
        'failed to do request: Head "https://127.0.0.1:5997/v2/x": tls: first record does not look like a TLS handshake',
        NetworkError,
    ),
    (
        'Head "https://registry-1.docker.io/v2/": net/http: request canceled (Client.Timeout exceeded): i/o timeout',
        NetworkError,
    ),
]


@pytest.mark.parametrize(("text", "kind"), REGISTRY_TEXTS)
def test_a_registrys_texts_are_told_apart(text, kind):
    assert type(recognise([text], REGISTRY)) is kind


@pytest.mark.parametrize("text", [text for text, _ in REGISTRY_TEXTS])
def test_a_registrys_texts_mean_nothing_outside_a_look_at_a_registry(text):
    """`sh: uv: not found` in a step must not be taken for a missing base."""
    assert recognise([text], KNOWN) is None


def test_the_first_telling_line_counts_and_is_shown():
    error = recognise(["fine", "  x: No Space Left On Device  ", "port is already allocated"])
    assert type(error) is DiskFullError
    assert error.details == ("x: No Space Left On Device",)


def test_nothing_is_recognised_in_nothing():
    assert recognise([]) is None
    assert recognise(["all is well", ""]) is None


@pytest.mark.parametrize("row", [*KNOWN, *REGISTRY], ids=lambda row: row[0][0])
def test_every_row_can_match(row):
    for part in row[0]:
        assert part == part.lower(), "texts are compared in lower case"


def test_how_the_engines_command_line_is_used_is_not_shown():
    said = "docker: 'docker stop' requires at least 1 argument\n\nUsage:  docker stop [OPTIONS] CONTAINER\n\nSee 'docker stop --help'.\n"
    found = translate(CommandError(("docker", "stop"), 1, "", said))
    assert found.details == ("docker: 'docker stop' requires at least 1 argument",)
    assert translate(CommandError(("docker", "x"), 1, "", "Run 'docker x --help' for more information\n")).details
