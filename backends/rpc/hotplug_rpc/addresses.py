"""Where servers are: `host:port`, and `host:port/cuda:0` for one of its devices."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from hotplug.errors import UsageError

__all__ = ["DEFAULT_PORT", "Address", "by_number", "is_loopback", "parse_address", "parse_bind"]

DEFAULT_PORT = 5640

_HOST = r"\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}))"
_ADDRESS = re.compile(rf"(?:{_HOST})(?::(?P<port>[0-9]{{1,5}}))?(?:/(?P<device>[a-z0-9_:-]+))?")
_EXAMPLE = "an address is written host:port or host:port/cuda:0, IPv6 in brackets"


@dataclass(frozen=True, slots=True)
class Address:
    """A server, or one of its devices.

    Attributes:
        host: name or number, IPv6 without brackets.
        port: 1 to 65535; 0 only where a server binds.
        device: the device's id on the server; empty for all.
    """

    host: str
    port: int
    device: str = ""

    @property
    def server(self) -> str:
        """Host and port."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """As ZeroMQ writes it."""
        return f"tcp://{self.server}"


def parse_address(text: str, *, bind: bool = False) -> Address:
    """An address.

    Args:
        text: what a user wrote, or a server was sent.
        bind: whether port 0, any free one, is allowed.

    Raises:
        UsageError: it is none.
    """
    match = _ADDRESS.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else -1
    if match is None or not (0 if bind else 1) <= port <= 65535:
        raise UsageError(f"{text!r} is no address of a server; {_EXAMPLE}")
    host = match["six"] or match["name"]
    if match["six"]:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(f"{text!r} is no address of a server; {_EXAMPLE}") from None
    return Address(host, port, match["device"] or "")


def parse_bind(text: str) -> Address:
    """What `--bind` takes: tcp://host:port, or the same without tcp://.

    Raises:
        UsageError: it is none.
    """
    address = parse_address(text.removeprefix("tcp://"), bind=True)
    if address.device:
        raise UsageError(f"{text!r} names a device; --devices says which are offered")
    return address


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return by_number(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return False


def by_number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address that is given by number; of IPv4 also where it is written as one of IPv6.

    Raises:
        ValueError: it is a name.
    """
    ip = ipaddress.ip_address(host)
    return getattr(ip, "ipv4_mapped", None) or ip
