"""What kit shows has no secret in it, and is else as it was."""

from __future__ import annotations

import ast
import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import kit
from kit import paths, process, redact
from kit.catalog import load_catalog
from kit.cli.output import print_error
from kit.errors import KitError

PACKAGE = Path(kit.__file__).parent
WORD = string.ascii_letters + string.digits
NOISE = st.text(max_size=40)

# Where any secret is recognised by what stands before it.
NAMED = (
    "password={}",
    "PASSWORD: {}",
    "Passphrase:      {}",
    "--password {}",
    "docker login --password={} registry.test",
    "tool --hf-token {} --quiet",
    "HF_TOKEN={}",
    "MY_PAT={}",
    "DB_PWD={}",
    "SIGNING_KEY={}",
    "PGPASSWORD={}",
    "PGPASS={}",
    "AWS_SECRET_ACCESS_KEY: {}",
    "x-api-key: {}",
    "apikey={}",
    "AccountKey={}",
    "PRIVATE-TOKEN: {}",
    "_authToken={}",
    '{{"auth": "{}"}}',
    '{{"password": "{}", "x": 1}}',
    "{{'token': '{}'}}",
    r"{{\"password\": \"{}\"}}",
    "Authorization: Bearer {}",
    "authorization: token {}",
    "-H 'Proxy-Authorization: Basic {}'",
    "Bearer {}",
    "Cookie: theme=dark; id={}",
    "Set-Cookie: {}; path=/",
    "http://127.0.0.1:8888/lab?token={}",
    "https://bucket.test/x?X-Amz-Date=2026&X-Amz-Signature={}&x=1",
    "https://bucket.test/x?X-Amz-Credential={}",
    "https://blob.test/x?sv=2026&sig={}",
    "https://api.test/?key={}",
    "https://bucket.test/x?Expires=1&Signature={}&Key-Pair-Id=K",
    "login?next=%2Ftree%3Ftoken%3D{}",
    "https://me:{}@mirror.test/simple",
    "https://{}@mirror.test/simple",
    "HTTP://{}@mirror.test",
    "ssh://me:{}@gpu1:22",
    "http_proxy=http://me:{}@proxy.test:3128",
    "me:{}@proxy.test:3128",
)
# Those that any text recognises.
TOKENS = (
    *("hf_", "ghp_", "gho_", "github_pat_", "glpat-", "sk-proj-", "AKIA", "ASIA", "AIza", "xoxb-", "xoxp-", "npm_"),
    *("dckr_pat_", "nvapi-", "pypi-AgEIcHlwaS5vcmc", "eyJhbGciOiJIUzI1NiJ9.eyJ"),
)


def parts_of(secret: str, size: int) -> set[str]:
    return {secret[at : at + size] for at in range(len(secret) - size + 1)}


def assert_hidden(secret: str, context: str, text: str) -> None:
    shown = redact.text(text)
    left = {part for part in parts_of(secret, 6) if part in shown and part not in context}
    assert not left, shown
    assert redact.HIDDEN in shown


@pytest.mark.parametrize("context", NAMED)
@settings(max_examples=30)
@given(secret=st.text(WORD + "-_.~+/=!$%^*()@:", min_size=12, max_size=60), before=NOISE, after=NOISE)
def test_a_secret_is_hidden_by_its_name(context: str, secret: str, before: str, after: str) -> None:
    if "://" in context or "@" in context:
        secret = secret.replace("/", "_")
    # A file of this name, and an option without a value, in place of a secret.
    assume(not secret.startswith(("-", "/")))
    assert_hidden(secret, before + context + after, f"{before} {context.format(secret)} {after}")


@pytest.mark.parametrize("kind", TOKENS)
@settings(max_examples=30)
@given(rest=st.text(WORD, min_size=16, max_size=80), before=NOISE, after=NOISE)
def test_a_token_is_hidden_wherever_it_stands(kind: str, rest: str, before: str, after: str) -> None:
    assert_hidden(rest, before + kind + after, f"{before} {kind}{rest} {after}")
    assert_hidden(rest, before + kind + after, f"{before}='{kind}{rest}',{after}")


@given(password=st.text(WORD + "@:#?!$=\"'", min_size=8, max_size=40), before=NOISE, after=NOISE)
@example(password="p@ss@word", before="", after="")
def test_a_password_in_an_address_may_have_any_character(password: str, before: str, after: str) -> None:
    assert_hidden(password, before + after, f"{before} https://me:{password}@host.test/x {after}")
    assert redact.without_users(f"https://me:{password}@host.test/x") == "https://host.test/x"


@pytest.mark.parametrize("password", ["se/cret", "a/b/c@d", "/slash"])
def test_a_password_in_an_address_may_have_a_slash(password: str) -> None:
    assert redact.text(f"https://me:{password}@host.test/x") == "https://***@host.test/x"
    assert redact.without_users(f"https://me:{password}@host.test/x") == "https://host.test/x"


@given(body=st.lists(st.text(WORD + "+/", min_size=20, max_size=64), min_size=1), is_whole=st.booleans())
def test_a_private_key_is_hidden_also_where_its_end_is_missing(body: list[str], is_whole: bool) -> None:
    for kind in ("", "RSA ", "OPENSSH ", "EC "):
        head, foot = f"-----BEGIN {kind}PRIVATE KEY-----", f"-----END {kind}PRIVATE KEY-----\nrest"
        shown = redact.text("\n".join(["before", head, *body, *([foot] if is_whole else [])]))
        assert shown == "before\n***" + ("\nrest" if is_whole else "")


def test_a_quoted_value_is_hidden_as_a_whole() -> None:
    assert redact.text('password="two words, and; more" x') == "password=*** x"
    assert redact.text("--password 'two words' x") == "--password *** x"


LINES = [
    "user@gpu1",
    "ssh://me@gpu1:22 cannot be reached over SSH",
    "git@github.com:org/kit.git",
    "mirror.test:5000/team",
    "docker.io/library/debian:bookworm@sha256:0123456789abcdef",
    "https://github.com/actions/checkout@v4",
    "https://host.test:8080/path@v1",
    "12:30:45 me@host",
    "open /etc/passwd: no such file or directory",
    "tokenizers==0.21.0",
    "max_tokens=512, num_tokens: 128",
    "PWD=/home/me OLDPWD=/",
    "--secret=id=ca,src=/etc/ca.pem",
    "--password-stdin",
    "docker-credential-desktop: executable file not found",
    '"Authorization": null, "token": null',
    'Bearer realm="https://auth.test/x"',
    "Basic usage, Bearer tokens",
    "sk-learn-contrib, pypi-attestations, a task-scheduler-service",
    "--user=1000:1000 --publish=127.0.0.1:8888:8888",
    "KEYBOARD=us, the key: value",
    *(line for problem in load_catalog().problems for line in problem.examples),
]


@given(st.lists(st.sampled_from(LINES), max_size=6))
def test_a_text_without_secrets_is_as_it_was(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert redact.text(text) == text


@given(st.text(st.characters(exclude_characters=":=@-_"), max_size=200))
def test_a_text_that_can_have_no_secret_is_as_it_was(text: str) -> None:
    assume(not re.search(r"bearer|basic|eyj|aiza|a[ks]ia|\?", text, re.IGNORECASE))
    assert redact.text(text) == text


def test_files_without_secrets_are_as_they_were() -> None:
    data = Path(__file__).parent / "data"
    files = [*data.rglob("*.log"), *(data / "host").iterdir(), *paths.images_dir().glob("*/Dockerfile")]
    assert len(files) > 30
    for file in files:
        text = file.read_text(errors="replace").replace("token=...", "")
        assert redact.text(text) == text, file


@given(st.text())
def test_hiding_twice_is_hiding_once(text: str) -> None:
    once = redact.text(f"{text} password={text}")
    assert redact.text(once) == once


PIECES = [
    *(
        "a",
        "A1",
        "://",
        "a:",
        ":",
        "@",
        "a@",
        "password",
        "password=",
        'password="',
        "token ",
        "--",
        "--a",
        "-",
        "_key",
    ),
    *("eyJ", "eyJabcdefgh.", "bearer ", "basic ", "authorization:", "cookie:", "?", "&key=", "%3d", "=", "[", "(", ","),
    *("-----BEGIN PRIVATE KEY-----", "pypi-a", "hf_", "sk-", "ssh://", "\\", "/", " ", "\t", "'", '"', "a.", "x="),
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_line_takes_time_in_proportion(piece: str) -> None:
    """Seven such lines of 40 kB, for which a quadratic pattern would take minutes."""
    begun = time.process_time()
    for other in PIECES[::6]:
        line = (piece + other) * (40_000 // len(piece + other))
        redact.text(line)
        redact.without_queries(redact.without_users(line))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in ("WANDB_API_KEY", "HF_TOKEN", "PGPASSFILE", "SSH_PASSPHRASE", "SESSION_COOKIE")),
        *((name, True) for name in ("MY_PAT", "DB_PWD", "aws_secret_access_key", "NPM_AUTH", "GPG_KEY", "credentials")),
        *((name, True) for name in ("PGPASS", "SSH_PRIV", "SMTP_PASS", "SSHPASS", "APIKEYS", "SESSION_ID", "MY_JWT")),
        *((name, True) for name in ("GIT_CREDS", "X_SIGNATURE", "CSRF", "BLOB_SAS", "SSH_KEYS", "SSH_PRIVATE")),
        *((name, False) for name in ("COMPASS", "BYPASS", "TOKENIZERS_PARALLELISM", "AUTHOR", "KEYRING", "PRIVATEER")),
        *((name, False) for name in ("PATH", "PWD", "OLDPWD", "KEYBOARD", "MONKEY", "WANDB_MODE", "PYTHONPATH")),
        ("org.opencontainers.image.authors", False),
    ],
)
def test_names_of_variables_that_hold_secrets(name: str, is_secret: bool) -> None:
    assert redact.is_secret_name(name) is is_secret


def test_addresses_without_users_and_queries() -> None:
    text = "see https://me@a.test/x?token=1#y and ssh://me:x@b.test, http://c.test:80/p@q"
    assert redact.without_users(text) == "see https://a.test/x?token=1#y and ssh://b.test, http://c.test:80/p@q"
    assert redact.without_queries("at https://a.test/x?token=1#y or b?c") == "at https://a.test/x or b?c"


def test_errors_and_the_log_of_programs_are_without_secrets(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "https://me:hunter22@mirror.test"
    key = ("-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0B", "-----END PRIVATE KEY-----", "the end")
    print_error(KitError(f"{secret} does not answer", details=(f"GET {secret}", *key), hint=f"ask {secret}"))
    with caplog.at_level("DEBUG", logger="kit.process"):
        process.run(["true", secret, "--password", "two words"])
    told = "https://***@mirror.test"
    assert capsys.readouterr().err == (
        f"error: {told} does not answer\n  GET {told}\n  ***\n  the end\nhint: ask {told}\n"
    )
    assert caplog.messages == [f"run: true {told} --password ***"]


# It looks for secrets inside an image, where there is no kit.
SCANNER = "verify/suite/inside/files.py"


def test_no_other_module_says_what_a_secret_looks_like() -> None:
    told = re.compile(
        r"passw\w*\W*\||\|\W*passw|token\w*\||\|\W*token|\bhf_(?!endpoint)|glpat|AKIA|bearer\\s|^\*\*\*$|\][*+]?(?:\{[\d,]+\})?(?:\(\?=)?@",
        re.I,
    )
    found = [
        f"{file.relative_to(PACKAGE)}:{node.lineno} {node.value}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if str(file.relative_to(PACKAGE)) not in ("redact.py", SCANNER)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and told.search(node.value)
    ]
    assert not found, "use kit/redact.py"
