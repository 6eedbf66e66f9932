"""Mail and IP addresses in a text.

list(mails("write to maria@firm.de"))       [Found("mail", 9, 22, "maria@firm.de")]
list(ips("reached from 93.184.216.34"))     [Found("ip", 13, 26, "93.184.216.34")]

Version numbers are no addresses: what stands beside decides. Nor are C++ names (`add::face`), slices (`a[1::2]`),
`git@host:path`, and addresses that are nobody's (127.0.0.1, 0.0.0.0, netmasks, whole
networks such as 10.0.0.0/16, user@example.com).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from llamaduo.privacy.found import CERTAIN, IP, LIKELY, MAIL, Found

_L = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f"
_MAIL = re.compile(
    rf"[0-9{_L}_](?:[0-9{_L}_.%+'!#$&*/=?^`{{|}}~-]{{0,62}}[0-9{_L}_%+-])?@"
    rf"(?:[0-9{_L}](?:[0-9{_L}-]{{0,61}}[0-9{_L}])?\.){{1,6}}(?:xn--[a-z0-9-]+|[{_L}]{{2,24}})(?![0-9{_L}@])"
)
_ANY_SCRIPT = re.compile(r"\w[\w.+-]{0,62}@(?:\w[\w-]{0,61}\.){1,6}[^\W\d_]{2,24}(?![\w@])")
_SPELLED = re.compile(
    rf"[0-9{_L}][0-9{_L}_.+-]{{0,62}}\s?(?:\[at\]|\(at\)|\{{at\}})\s?[0-9{_L}-]{{1,63}}"
    rf"(?:(?:\.|\s?(?:\[dot\]|\(dot\)|\{{dot\}}|\[punkt\]|\(punkt\))\s?)[0-9{_L}-]{{2,63}}){{1,4}}",
    re.IGNORECASE,
)
_NO_DOMAIN = re.compile(r"@\d(?:\.\d)?x\.\w+$|\.(?:png|jpe?g|gif|svg|webp|service|socket|timer|local_rank)$", re.I)
_NOBODYS = re.compile(
    r"(?:examples?|e?mail|user(?:_?name)?|name|someone|foo|bar|test|your[\w.-]*|my[_-]?e?mail)\d?@(?:[\w-]+\.)?example\.",
    re.I,
)
_IN_AN_ADDRESS = re.compile(r"://[^\s/@:]*:[^\s/@]?$")
"""What follows is a password: postgres://user:password@host.net/."""


def mails(text: str) -> Iterator[Found]:
    """Yield every mail address."""
    if "@" in text:
        taken = []
        for found in _MAIL.finditer(text):
            remote = found[0].lower().startswith(("git@", "hg@")) and text[found.end() : found.end() + 1] in (":", "/")
            taken.append(found)
            password = _IN_AN_ADDRESS.search(text, max(0, found.start() - 80), found.start() + 1)
            if not (remote or password or _NO_DOMAIN.search(found[0]) or _NOBODYS.match(found[0])):
                start = _behind_a_separator(found[0])
                yield Found(MAIL, found.start() + start, found.end(), found[0][start:].casefold(), "", CERTAIN)
        if not text.isascii():
            for found in _ANY_SCRIPT.finditer(text):
                if not any(found.start() < one.end() and one.start() < found.end() for one in taken):
                    yield Found(MAIL, found.start(), found.end(), found[0].casefold(), "", LIKELY)
    for found in _SPELLED.finditer(text) if "at" in text.lower() else ():
        yield Found(MAIL, found.start(), found.end(), "".join(found[0].split()).casefold(), "", LIKELY)


def _behind_a_separator(found: str) -> int:
    """Return where an address begins behind what may stand in one by the letter, and hardly ever does."""
    local = found.partition("@")[0]
    return max(local.rfind(mark) for mark in "=/|?&{}`'*#$!^~") + 1 if re.search(r"[=/|?&{}`*#$!^~]", local) else 0


_V4 = re.compile(
    r"(?<![\w.])(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?![\w]|\.\w|-[A-Za-z])", re.ASCII
)
_V6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})?(?!\w|:[\w:]|\.\d)", re.ASCII
)
_OF_VERSIONS = re.compile(
    r"(?:\b(?:versions?|ver|v|releases?|released|builds?|revisions?|rev|upgrade[ds]?|update[ds]?|patch(?:ed)?|firmware|drivers?|"
    r"sdk|sections?|chapters?|clauses?|paragraphs?|oid|versión|versione|"
    r"versão|wersja|версия|abschnitt|kapitel|mib)\b|§|版本)\W{0,4}(?P<between>(?:[A-Za-z][\w-]*\W{1,3}){0,2})"
    r"(?:v?\d+(?:\.\d+)+\s*(?:to|and|or|through|bis|und|,|->?|/)\s*)*$",
    re.IGNORECASE,
)
_OF_HOSTS = re.compile(
    r"\b(?:ips?|ipv4|hosts?|address(?:es)?|addr|servers?|ping\w*|dns|gateways?|subnets?|clients?|from|login|ssh|proxy|"
    r"router|inet|network|adresse|dirección|адрес)\b|地址|https?://",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"(?:(?:python|java|jdk|npm|pip|package|library)\s|==|>=|<=|~=|!=|~>|\^|[A-Za-z]/|[A-Za-z]-|\d-)\s?$"
)
_IS_VERSION = re.compile(
    r"\s?(?:version|release|build|beta|alpha|rc\d?|\(?snapshot|sdk)\b|\.(?:tar|zip|jar|dll|exe|whl|deb|rpm)", re.I
)
_NEAR = 48


def ips(text: str) -> Iterator[Found]:
    """Yield every IP address."""
    for found in _V4.finditer(text) if text.count(".") >= 3 else ():
        octets = [int(part) for part in found[0].split(".")]
        network = octets[3] == 0 and text[found.end() : found.end() + 1] == "/"
        nobodys = octets[0] in (0, 127, 255) or octets == [169, 254, 169, 254] or network
        if not nobodys and not _is_version(text, found.start(), found.end()):
            yield Found(IP, found.start(), found.end(), ".".join(map(str, octets)), "4", LIKELY)
    for found in _V6.finditer(text) if "::" in text or text.count(":") >= 7 else ():
        written = found[0].removesuffix(":") if not found[0].endswith("::") else found[0]
        if value := _sixth(written):
            yield Found(IP, found.start(), found.start() + len(written), value, "6", CERTAIN)


def _is_version(text: str, start: int, end: int) -> bool:
    """Tell whether four numbers are those of a version, as the words right before them, or behind them, say."""
    line = text.rfind("\n", 0, start) + 1
    before = text[max(line, start - _NEAR) : start]
    if _COMPARED.search(before) or _IS_VERSION.match(text, end):
        return True
    found = _OF_VERSIONS.search(before)
    return found is not None and not _OF_HOSTS.search(found["between"])


def _sixth(text: str) -> str | None:
    """Return an IPv6 address in its usual form; None for what only looks like one, or is nobody's."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    groups = [group for group in text.split(":") if group]
    plain = len(groups) >= 3 or (len(groups) == 2 and len(groups[0]) == 4 and groups[0][0] in "23fF")
    if not plain or not any(map(str.isdigit, text)) or address.is_loopback or address.is_unspecified:
        return None
    return address.compressed
