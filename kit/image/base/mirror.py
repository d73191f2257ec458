"""Which Debian archive a base comes from, and by which keys it is known."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from kit import apt, redact
from kit.apt import Apt, Distribution, Source
from kit.errors import BadInputError, NetworkError
from kit.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A Debian archive for one suite: its addresses, and the settings of the host's apt it cannot do without."""

    uri: str
    sources: tuple[Source, ...]
    epoch: int
    settings: tuple[str, ...] = ()


def choose_mirror(suite: str, wanted: str, work: Path, on_message: Callable[[str], None] = lambda _: None) -> Mirror:
    """Which addresses the base comes from: `wanted`, else the host's own mirror when it carries the suite, else (on a
    host that is not Debian) the one that Debian's own tool for it takes.

    Raises NetworkError when it does not answer.
    """
    distribution = apt.host_distribution()
    hosts = apt.host_sources()
    settings: tuple[str, ...] = ()
    candidates = [wanted.rstrip("/")]
    security = ""
    if not wanted:
        main = apt.main_archive(hosts, distribution)
        own = apt.resolved_uri(main.uri)
        if distribution.family == "debian":
            candidates = [own]
            security = next(
                (
                    apt.resolved_uri(source.uri)
                    for source in hosts
                    if source.suite == f"{distribution.codename}-security"
                ),
                "",
            )
        else:
            # Mirrors that carry Ubuntu mostly carry Debian beside it.
            beside = [re.sub(r"/ubuntu(-ports)?$", "/debian", own)] if re.search(r"/ubuntu(-ports)?$", own) else []
            candidates = [*beside, *default_mirror(tools(distribution, work, on_message))]
        settings = apt.host_settings(apt.DATE_CHECKS)  # which a frozen one needs in the base as well
    apt.configure(work, [*candidates, security])
    release, uri = "", ""
    for uri in candidates:
        if release := _fetch(f"{uri}/dists/{suite}/InRelease", work):
            break
    else:
        tried = " and ".join(redact.without_users(candidate) for candidate in candidates)
        raise NetworkError(
            f"the mirror {tried} does not answer, or has no {suite}",
            hint="check the network, or name a Debian mirror: `kit base make --mirror http://…/debian`",
        )
    main_suite = Source(uri=uri, suite=suite, components=("main",), options={})
    sources = [main_suite]
    if _fetch(f"{uri}/dists/{suite}-updates/InRelease", work):
        sources.append(replace(main_suite, suite=f"{suite}-updates"))
    for candidate in dict.fromkeys([security, f"{uri}-security"]):
        if candidate and _fetch(f"{candidate}/dists/{suite}-security/InRelease", work):
            sources.append(replace(main_suite, uri=candidate, suite=f"{suite}-security"))
            break
    return Mirror(uri=uri, sources=tuple(sources), epoch=source_date_epoch(release), settings=settings)


def tools(distribution: Distribution, work: Path, on_message: Callable[[str], None]) -> Path:
    """A folder with Debian's keys and mmdebstrap, for a host that is another distribution, from that one's archive."""
    folder = work / "tools"
    if not folder.is_dir():
        on_message("downloading Debian's keys, which this machine has not")
        archive = apt.main_archive(apt.host_sources(), distribution)
        lists = Apt(folder=work / "apt-tools", sources=apt.host_suite(archive, distribution))
        lists.update()
        apt.unpack(lists.download(["debian-archive-keyring", "mmdebstrap"], work / "apt-tools/debs"), folder)
    return folder


def default_mirror(folder: Path) -> list[str]:
    """The mirror that the mmdebstrap below `folder` takes when it is given none, read from its own text; empty when it
    is not there.
    """
    try:
        text = (folder / "usr/bin/mmdebstrap").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return re.findall(r"^\s*my \$mirror\s*=\s*'([^']+)';", text, re.MULTILINE)[:1]


def keyring(work: Path, on_message: Callable[[str], None]) -> Path:
    """The keys that Debian's archive is signed with: the host's, else those of its distribution's package."""
    distribution = apt.host_distribution()
    found = Distribution(family="debian", codename="").keyring
    if found.is_file() or distribution.family == "debian":
        return found
    folder = tools(distribution, work, on_message) / "usr/share/keyrings"
    return next(iter(sorted(folder.glob("debian-archive-keyring.[gp][gp][pg]"))), found)


def source_date_epoch(release: str) -> int:
    """SOURCE_DATE_EPOCH, else the date of the suite's release file: it changes only when a point release does."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        if not re.fullmatch("[0-9]{1,12}", given):
            raise BadInputError(f"SOURCE_DATE_EPOCH is `{given}`", hint="it is a number of seconds since 1970")
        return int(given)
    match = re.search(r"^Date: (.*)$", release, re.MULTILINE)
    return int(parsedate_to_datetime(match[1].replace("UTC", "+0000")).timestamp()) if match else 0


def _fetch(url: str, work: Path) -> str:
    """A text file from the mirror; empty when it does not come."""
    target = work / "fetched"
    try:
        return target.read_text(errors="replace") if apt.fetch(url, target, work) else ""
    except OSError:
        return ""
    finally:
        target.unlink(missing_ok=True)
