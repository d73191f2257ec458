import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInputError
from kit.network import HOST_NAME, NetworkSettings, ca_file, is_loopback, proxies, read_settings, with_loopback

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture
def bundle(tmp_path):
    file = tmp_path / "bundle.crt"
    file.write_text(PEM)
    return file


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "company.pem"
    file.write_text(PEM)
    return file


def test_the_file_that_was_chosen_wins(bundle, own):
    assert ca_file(own, {"SSL_CERT_FILE": "/other"}, bundles=(bundle,), anchors=()) == own


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.pem cannot be read: No such file"):
        ca_file(tmp_path / "nothing.pem", {})


def test_a_folder_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read"):
        ca_file(tmp_path, {})


def test_a_file_without_a_certificate_is_bad_input(tmp_path):
    der = tmp_path / "ca.der"
    der.write_bytes(b"\x30\x82\xff\x00")
    with pytest.raises(BadInputError, match="no PEM certificate") as caught:
        ca_file(der, {})
    assert "PEM" in caught.value.hint


def test_the_file_of_the_environment_is_taken_when_it_is_not_the_systems(bundle, own):
    assert ca_file(None, {"SSL_CERT_FILE": str(own)}, bundles=(bundle,), anchors=()) == own
    assert ca_file(None, {"SSL_CERT_FILE": str(bundle)}, bundles=(bundle,), anchors=()) is None
    assert ca_file(None, {"SSL_CERT_FILE": "/no/such/file"}, bundles=(bundle,), anchors=()) is None


@pytest.mark.parametrize("name", ["company.crt", "company.pem"])
def test_the_systems_bundle_is_taken_when_an_administrator_added_to_it(tmp_path, bundle, name):
    anchors = tmp_path / "anchors"
    anchors.mkdir()
    assert ca_file(None, {}, bundles=(bundle,), anchors=(anchors,)) is None
    (anchors / name).write_text(PEM)
    assert ca_file(None, {}, bundles=(Path("/no/bundle"), bundle), anchors=(Path("/no/folder"), anchors)) == bundle
    assert ca_file(None, {"SSL_CERT_FILE": str(bundle)}, bundles=(bundle,), anchors=(anchors,)) == bundle


def test_proxies_are_read_in_both_spellings_and_empty_ones_left_out():
    assert proxies({"http_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2", "no_proxy": "", "FTP_PROXY": "x"}) == {
        "http_proxy": "http://a:1",
        "https_proxy": "http://b:2",
    }


def test_the_lower_case_spelling_goes_first():
    assert proxies({"http_proxy": "http://a:1", "HTTP_PROXY": "http://b:2"}) == {"http_proxy": "http://a:1"}


@pytest.mark.parametrize(
    "env",
    [
        {"UV_DEFAULT_INDEX": "https://m/simple", "UV_INDEX_URL": "x", "PIP_INDEX_URL": "y"},
        {"UV_INDEX_URL": "https://m/simple", "PIP_INDEX_URL": "y"},
        {"PIP_INDEX_URL": "https://m/simple"},
    ],
)
def test_the_index_of_the_environment(env, tmp_path):
    assert read_settings(environment={"HOME": str(tmp_path), **env}).index_url == "https://m/simple"


def test_the_index_of_pips_files(tmp_path):
    def write(name, url):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[global]\nindex-url = {url}\ntimeout = 5%\n")

    env = {"HOME": str(tmp_path)}
    write(".pip/pip.conf", "https://old/simple")
    assert read_settings(environment=env).index_url == "https://old/simple"
    write(".config/pip/pip.conf", "https://new/simple")
    assert read_settings(environment=env).index_url == "https://new/simple"
    write("own.conf", "https://own/simple")
    assert (
        read_settings(environment={**env, "PIP_CONFIG_FILE": str(tmp_path / "own.conf")}).index_url
        == "https://own/simple"
    )


@pytest.mark.parametrize("content", [b"no section\n", b"\xff\xfe", b"[global\n", b"[other]\nx = 1\n"])
def test_a_broken_pip_file_is_passed_over(tmp_path, content):
    broken = tmp_path / "broken.conf"
    broken.write_bytes(content)
    good = tmp_path / ".pip/pip.conf"
    good.parent.mkdir()
    good.write_text("[global]\nindex-url = https://good/simple\n")
    assert (
        read_settings(environment={"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(broken)}).index_url
        == "https://good/simple"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (NetworkSettings(proxies={}), False),
        (NetworkSettings(proxies={"http_proxy": "http://proxy.example:3128"}), False),
        (NetworkSettings(proxies={"no_proxy": "localhost,127.0.0.1"}), False),
        (NetworkSettings(proxies={"https_proxy": "http://127.0.0.1:3128"}), True),
        (NetworkSettings(proxies={"http_proxy": "127.0.0.1:3128"}), True),
        (NetworkSettings(proxies={"http_proxy": "localhost:3128"}), True),
        (NetworkSettings(proxies={"all_proxy": "socks5://[::1]:1080"}), True),
        (NetworkSettings(proxies={"http_proxy": "http://[broken"}), False),
        (NetworkSettings(proxies={}, named_index="http://localhost:8080/simple"), True),
        (NetworkSettings(proxies={}, named_index="https://mirror.example/localhost/simple"), False),
        (NetworkSettings(proxies={}, framework_index="http://127.0.0.1:8080/whl/cpu"), True),
    ],
)
def test_what_listens_on_this_machines_loopback_needs_the_hosts_network(settings, expected):
    assert settings.needs_host_network is expected


def test_without_settings_there_is_no_script():
    assert NetworkSettings(proxies={}).shell_script() == ""


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\x1f"), min_size=1))
def test_the_script_sets_exactly_the_values_whatever_is_in_them(value):
    settings = NetworkSettings(proxies={"http_proxy": value}, named_index=value, framework_index=value)
    done = subprocess.run(
        [
            "sh",
            "-c",
            'eval "$1"; printf "%s\\037" "$http_proxy" "$HTTP_PROXY" "$UV_DEFAULT_INDEX" "$PIP_INDEX_URL" '
            '"$KIT_FRAMEWORK_INDEX"',
            "sh",
            settings.shell_script(),
        ],
        capture_output=True,
        check=True,
    )
    assert done.stdout.split(b"\x1f")[:5] == [value.encode()] * 5
    assert done.stderr == b""


def test_read_settings_takes_this_process_environment_by_default(monkeypatch, own):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://m/simple")
    monkeypatch.setenv("KIT_FRAMEWORK_INDEX", "https://m/whl")
    settings = read_settings(ca_cert=own)
    assert settings.framework_index == "https://m/whl"
    assert (settings.ca_file, settings.proxies) == (own, {"https_proxy": "http://proxy:1"})
    assert settings.index_url == "https://m/simple"


# -- in a container


def settings(**more) -> NetworkSettings:
    return NetworkSettings(**{"proxies": {}, "pip_files": (), **more})


def test_what_is_elsewhere_reaches_a_container_as_it_is():
    found = settings(
        proxies={"http_proxy": "http://me:p@proxy.example:1"},
        named_index="https://me:p@mirror.example/simple",
        named_trust="mirror.example",
        hub="https://hub.example",
    ).inside()
    assert found.plain == {}
    assert found.secret == {
        "http_proxy": "http://me:p@proxy.example:1",
        "PIP_INDEX_URL": "https://me:p@mirror.example/simple",
        "UV_DEFAULT_INDEX": "https://me:p@mirror.example/simple",
        "PIP_TRUSTED_HOST": "mirror.example",
        "HF_ENDPOINT": "https://hub.example",
        "no_proxy": "127.0.0.1,localhost,::1",
    }
    assert (found.uses_host, found.left_out) == (False, ())


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("http://127.0.0.1:7890", f"http://{HOST_NAME}:7890"),
        ("http://localhost:7890/", f"http://{HOST_NAME}:7890/"),
        ("socks5h://[::1]:7890", f"socks5h://{HOST_NAME}:7890"),
        ("http://127.0.1.1:7890", f"http://{HOST_NAME}:7890"),
        ("127.0.0.1:7890", f"{HOST_NAME}:7890"),
    ],
)
def test_a_proxy_on_the_loopback_is_reached_at_its_machine_or_left_out(url, inside):
    both = settings(proxies={"http_proxy": url, "no_proxy": "a"})
    assert both.loopback_ports == {7890}
    found = both.inside(frozenset({7890}))
    assert (found.plain, found.uses_host, found.left_out) == ({"http_proxy": inside}, True, ())
    assert found.secret == {"no_proxy": "a,127.0.0.1,localhost,::1"}
    found = both.inside(frozenset({1}))
    assert (found.plain, found.secret, found.uses_host) == ({}, {}, False)
    assert len(found.left_out) == 1
    assert "7890" in found.left_out[0]
    shared = both.inside(None)
    assert (shared.plain, shared.secret["http_proxy"], shared.uses_host) == ({}, url, False)


def test_a_password_of_what_is_left_out_or_moved_is_shown_nowhere():
    both = settings(proxies={"https_proxy": "http://me:p4ss@127.0.0.1:1"})
    assert "p4ss" not in "".join(both.inside().left_out)
    moved = both.inside(frozenset({1}))
    assert moved.plain == {}
    assert moved.secret["https_proxy"] == f"http://me:p4ss@{HOST_NAME}:1"


def test_an_index_of_files_is_nowhere_in_a_container():
    found = settings(named_index="file:///srv/simple").inside()
    assert (found.secret, found.left_out) == ({}, ())


def test_pips_own_file_says_which_index_and_whom_it_trusts(tmp_path):
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = http://mirror.example/simple\ntrusted-host =\n  mirror.example\n  b.example\n"
    )
    found = read_settings(environment={"HOME": str(tmp_path), "SSL_CERT_FILE": ""}).inside()
    assert found.secret["PIP_INDEX_URL"] == "http://mirror.example/simple"
    assert found.secret["PIP_TRUSTED_HOST"] == "mirror.example b.example"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "127.0.0.1,localhost,::1"),
        ("a, localhost ,", "a,localhost,127.0.0.1,::1"),
        ("*", "*"),
        ("a,*", "*"),
    ],
)
def test_no_proxy_has_the_loopback(said, expected):
    assert with_loopback(said) == expected


@given(st.text(max_size=30))
def test_no_address_is_an_accident(url):
    found = settings(proxies={"http_proxy": url}).inside(frozenset({80}))
    assert bool(found.left_out or found.plain) <= is_loopback(url)
