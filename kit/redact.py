"""Hides passwords, tokens and keys in what kit shows; the only module that knows what they look like.

Every pattern takes time in proportion to the text, however long its lines are. They are compiled when they are first
used, as most commands show nothing that needs it.
"""

from __future__ import annotations

import re

HIDDEN = "***"

# Of a variable, field, header or option: what follows it is a secret.
_NAME = (
    r"(?:(?<!/etc/)passw(?:or)?d|passphrase|pgpass|secret(?!=(?:id|type)=)|credential|signature|sessionid|[cx]srf"
    r"|(?:api|access|account|private|session|signing|encryption)[_-]?key"
    # Not the words and numbers of language models: tokenizer, max_tokens=512.
    r"|token(?!iz|s[\"']?\s{0,40}[=: ]\s{0,40}\d{1,7}(?![\w.-]))"
    r"|(?<![a-z])pwd(?==[^/])|[_-](?:pat|pwd|key)(?![a-z])|[_\"']auth(?![a-z]))"
)
_QUOTE = r"\\{0,4}[\"']?"  # JSON inside JSON has it escaped
# Where a value follows that is one, and not what a program says it did with it (`failed to fetch token: Get "https:…`).
_SIGN = r"[=:](?!\s{0,40}[\"']?(?:null|none|true|false|get|head|post|put)(?![^\s\"'&,;)}\]]))"
_VALUE = r"""(?:(?:bearer|basic|digest|token)\s{1,40})?(?:"[^"\r\n]*"|'[^'\r\n]*'|\\{0,4}["']?[^\s"'&,;]+)"""
# Words that follow `Bearer` and `Basic` where they are not given with a secret.
_SCHEME = r"(?!(?:auth\w*|realm|tokens?|usage|block)\b)"

# Each with what stands in its place.
_SECRETS: tuple[tuple[str, str], ...] = (
    (r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", HIDDEN),
    # Before the @ of a URL, of which the password may have an @ or, with a user name, a / in it. The name alone is the
    # secret in some, but not in one for ssh.
    (r"(?<=://)(?:(?<!ssh://)[^/\s]*|[^/\s:@]*:[^/\s]*|[^/\s:@]{1,64}:(?!\d{1,5}/)\S{1,256})@", f"{HIDDEN}@"),
    (rf"(authorization{_QUOTE}\s{{0,40}}{_SIGN}\s{{0,40}}{_QUOTE})[^\"'\r\n]{{2,}}", rf"\1{HIDDEN}"),
    (rf"(cookie2?{_QUOTE}\s{{0,40}}:\s{{0,40}}{_QUOTE})[^\"'\r\n]{{2,}}", rf"\1{HIDDEN}"),
    (rf"({_NAME}\w{{0,20}}{_QUOTE}(?:%3d|\s{{0,40}}{_SIGN}\s{{0,40}})){_VALUE}", rf"\1{HIDDEN}"),
    (rf"((?<![\w-])--?(?!-)[\w-]{{0,30}}{_NAME}\s{{1,40}})(?!-){_VALUE}", rf"\1{HIDDEN}"),
    (r"([?&](?:sig|key|code|auth|pass|pwd)=)[^\s\"'&,;]+", rf"\1{HIDDEN}"),
    (rf"\b(bearer\s{{1,40}}){_SCHEME}[^\s\"'&,;]{{4,}}", rf"\1{HIDDEN}"),
    (rf"\b(basic\s{{1,40}}){_SCHEME}(?:[\w.~+/=-]{{12,}}|[a-z0-9+/]{{2,11}}={{1,2}})", rf"\1{HIDDEN}"),
    # Before the @ of an address without a scheme, as proxies are given; not a digest (debian:bookworm@sha256:…).
    (r"""(?<![\w.%+~-])(?!mailto:)[^\s"'=,;&?(\[/:@]{0,64}:[^\s/"']{1,256}@(?!sha\d)""", f"{HIDDEN}@"),
    # Those that say themselves what they are: Hugging Face, GitHub, GitLab, AWS, Slack, npm, Docker, NVIDIA, PyPI, JWT.
    (r"(?-i:\b(?:hf_|gh[pousr]_|github_pat_|glpat-|A[KS]IA|AIza|xox[a-z]-|npm_|dckr_pat_|nvapi-)[\w-]{8,})", HIDDEN),
    (r"(?-i:\bsk-(?!learn)[\w-]{10,})", HIDDEN),
    (r"(?-i:\bpypi-(?=[a-z_-]{0,200}[A-Z0-9])[\w-]{8,})", HIDDEN),  # not a word such as pypi-attestations
    (r"(?-i:\beyJ[\w-]{7,}(?:\.[\w-]+){0,2})", HIDDEN),
)


def text(shown: str) -> str:
    """A text without the secrets in it, and else as it was. The user name of a machine (ssh://me@gpu1) stays."""
    for pattern, instead in _SECRETS:
        shown = re.sub(pattern, instead, shown, flags=re.IGNORECASE)
    return shown


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name, or a label, holds what is not for other eyes."""
    found = (
        r"token(?!iz)|secret|passw|passphrase|pgpass|credential|cookie|auth(?!ors?$)|signature|session(_?id)?$|[cx]srf"
        r"|jwt|_(pat|pwd|private)$|(^|_|api)keys?(_|$)|(^|_|ssh)pass(_|$)|(^|_)(priv|creds?|sas|otp)(_|$)"
    )
    return re.search(found, name, re.IGNORECASE) is not None


def without_users(urls: str) -> str:
    """A URL, or a text with some, without the user names and passwords in them."""
    return re.sub(r"(?<=://)(?:[^/\s]*|[^/\s:@]{1,64}:(?!\d{1,5}/)\S{1,256})@", "", urls)


def without_queries(urls: str) -> str:
    """A text without what the URLs in it ask for (after a ? or #)."""
    return re.sub(r"(://[^\s?#]*)(?:[?#]\S*)?", r"\1", urls)
