"""Keys: who a machine is, whom it lets in, and whom it knows.

    identity.key       this user's key pair: a server's when it serves, a client's when it connects
    clients.allowed    public keys that servers of this user let in, a line each: key, name
    servers.known      servers and their public keys, a line each: host:port, key

They lie in HOTPLUG_RPC_KEYS, or `rpc` in the user's folder for settings. The pair is made when it
is first needed, readable by its owner alone. One that others can read is refused, and so is a
folder or list that others can write to. A server lets in its own user without being told, and on
loopback addresses a client takes the server for its own user's. Keys are written as 64 hexadecimal
digits, which no shell changes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from hotplug.errors import SettingsError, UsageError
from hotplug_rpc.addresses import Address, is_loopback
from hotplug_rpc.errors import KeyFileError
from hotplug_rpc.files import READ_OR_WRITE, WRITE, check_private, locked

__all__ = ["TRUSTED", "Identity", "KeyRing", "default_folder", "parse_key"]

TRUSTED = "HOTPLUG_RPC_TRUSTED"
"""Further servers and their keys, for one program alone."""

_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[^\s#]{1,64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A key pair, 32 bytes each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"<Identity {self.public.hex()}>"  # never the secret


def default_folder() -> Path:
    """Where keys are kept."""
    given = os.environ.get("HOTPLUG_RPC_KEYS", "").strip()
    if given:
        return Path(given).expanduser()
    return Path(platformdirs.user_config_dir("hotplug", appauthor=False)) / "rpc"


def _trusted() -> dict[str, bytes]:
    """Servers and keys that HOTPLUG_RPC_TRUSTED names, as `hotplug cluster` sets it.

    Raises:
        SettingsError: it is not understood.
    """
    text = os.environ.get(TRUSTED, "")
    found: dict[str, bytes] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        server, _, key = item.partition("=")
        if not _KEY.fullmatch(key):
            raise SettingsError(
                f"{TRUSTED} is not understood; allowed is host:port=key, several with commas",
                variable=TRUSTED,
                value=text,
            )
        found[server] = bytes.fromhex(key)
    return found


def parse_key(text: str) -> bytes:
    """A public key as users write it.

    Raises:
        UsageError: it is none.
    """
    if not _KEY.fullmatch(text.lower()):
        raise UsageError(
            f"{text[:80]!r} is no key: one has 64 hexadecimal digits",
            remedy="`hotplug keys` on the other machine shows it",
        )
    return bytes.fromhex(text)


class KeyRing:
    """The files of one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def identity(self) -> Identity:
        """This user's key pair, made if it is not there.

        Raises:
            KeyFileError: it cannot be read or written, is broken, or others can read it.
        """
        path = self.folder / "identity.key"
        try:
            self._check_folder()
            return _read_identity(path)
        except FileNotFoundError:
            self._make_identity(path)
            return _read_identity(path)

    def _check_folder(self) -> None:
        """Whoever can write there could put another key in the place of ours."""
        check_private(self.folder, WRITE)

    def _make_identity(self, path: Path) -> None:
        import zmq  # noqa: PLC0415 - what only looks at lists of keys needs no ZeroMQ
        from zmq.utils import z85  # noqa: PLC0415

        public, secret = (z85.decode(part).hex() for part in zmq.curve_keypair())
        text = f"# hotplug: never copy this file to another machine\n{public}\n{secret}\n"
        try:
            # A link, unlike a rename, does not replace: two processes must agree on one identity.
            with self._unfinished(text) as unfinished, contextlib.suppress(FileExistsError):
                os.link(unfinished, path)
        except OSError as error:
            raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error

    @contextlib.contextmanager
    def _unfinished(self, text: str) -> Iterator[Path]:
        """A file with a text, which the owner alone can read; gone afterwards under this name."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        path = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def allowed(self) -> dict[bytes, str]:
        """Public keys that may come in, and their names; without this user's own.

        Raises:
            KeyFileError: the file is not as it has to be.
        """
        found: dict[bytes, str] = {}
        for number, line in self._lines("clients.allowed"):
            key, _, name = line.partition(" ")
            if not _KEY.fullmatch(key):
                raise self._broken("clients.allowed", number)
            found[bytes.fromhex(key)] = name.strip()
        return found

    def allow(self, key: bytes, name: str) -> None:
        """Let a client in.

        Raises:
            UsageError: the name has spaces, or what cannot be shown, or is too long.
            KeyFileError: the file cannot be written.
        """
        if not (_NAME.fullmatch(name) and name.isprintable()):
            raise UsageError(f"{name!r} is no name for a key: at most 64 characters, no spaces")
        with self._changing():
            found = self.allowed() | {key: name}
            self._write("clients.allowed", (f"{key.hex()} {name}" for key, name in found.items()))

    def forbid(self, what: str) -> bool:
        """Take a client off the list, by key or name; False if it does not stand there."""
        given = {what, what.lower()}
        with self._changing():
            found = self.allowed()
            kept = {key: name for key, name in found.items() if not given & {key.hex(), name}}
            self._write("clients.allowed", (f"{key.hex()} {name}" for key, name in kept.items()))
        return len(kept) < len(found)

    def known(self) -> dict[str, bytes]:
        """Servers, as host:port, and their public keys.

        Raises:
            KeyFileError: the file is not as it has to be.
        """
        found: dict[str, bytes] = {}
        for number, line in self._lines("servers.known"):
            server, _, key = line.partition(" ")
            if not _KEY.fullmatch(key.strip()):
                raise self._broken("servers.known", number)
            found[server] = bytes.fromhex(key.strip())
        return found

    def trust(self, server: str, key: bytes) -> None:
        """Know a server by its key from now on.

        Raises:
            KeyFileError: the file cannot be written.
        """
        with self._changing():
            found = self.known() | {server: key}
            self._write("servers.known", (f"{name} {key.hex()}" for name, key in found.items()))

    def server_key(self, address: Address) -> bytes:
        """The public key that a server must have.

        Raises:
            KeyFileError: the server is not known.
        """
        key = (_trusted() | self.known()).get(address.server)
        if key is not None:
            return key
        if is_loopback(address.host):
            return self.identity().public
        raise KeyFileError(
            f"the key of {address.server} is not known here",
            endpoint=address.server,
            remedy=f"`hotplug keys trust {address.server} KEY`, with the key that `hotplug keys` "
            "shows there",
        )

    def stamp(self) -> tuple[int, int]:
        """Changes when the list of clients does."""
        try:
            state = (self.folder / "clients.allowed").stat()
        except OSError:
            return (0, 0)
        return state.st_mtime_ns, state.st_size

    def _lines(self, name: str) -> list[tuple[int, str]]:
        try:
            self._check_folder()
            text = _private_text(self.folder / name, WRITE)
        except FileNotFoundError:
            return []
        lines = enumerate((line.strip() for line in text.splitlines()), 1)
        return [(number, line) for number, line in lines if line and not line.startswith("#")]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One process at a time reads a list, changes it, and writes it."""
        path = self.folder / ".lock"
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._check_folder()
                stack.enter_context(locked(path))
            except KeyFileError:  # which is an OSError too
                raise
            except OSError as error:
                raise KeyFileError(f"{path} cannot be locked: {error.strerror}") from error
            yield

    def _write(self, name: str, lines: Iterable[str]) -> None:
        path = self.folder / name
        try:
            with self._unfinished("".join(f"{line}\n" for line in lines)) as unfinished:
                unfinished.replace(path)
        except OSError as error:
            raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error

    def _broken(self, name: str, number: int) -> KeyFileError:
        return KeyFileError(f"line {number} of {self.folder / name} is not as it has to be")


def _read_identity(path: Path) -> Identity:
    text = _private_text(path, READ_OR_WRITE)
    keys = [line for line in text.splitlines() if line and not line.startswith("#")]
    if len(keys) != 2 or not all(map(_KEY.fullmatch, keys)):
        raise KeyFileError(f"{path} is broken", remedy="remove it; a new pair is made")
    return Identity(bytes.fromhex(keys[0]), bytes.fromhex(keys[1]))


def _private_text(path: Path, forbidden: int) -> str:
    check_private(path, forbidden)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} cannot be read: {error}") from error
