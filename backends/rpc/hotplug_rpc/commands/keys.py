"""`hotplug keys`: who this machine is, who may use its devices, and which servers it knows."""

from __future__ import annotations

import argparse
import json

from hotplug.errors import UsageError
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.keys import KeyRing, parse_key

__all__ = ["KeysCommand", "command"]

_ACTIONS = {
    "show": "this machine's public key and both lists",
    "allow": "KEY NAME: let a client use this machine's devices",
    "forbid": "KEY or NAME: do so no longer",
    "trust": "HOST:PORT KEY: know a server by its key",
    "path": "the folder that holds them",
}


class KeysCommand:
    """Shows or changes the files that `hotplug_rpc.keys` describes."""

    name = "keys"
    help = "show this machine's key; let clients in, and know servers, by theirs"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        text = "; ".join(f"{action}: {what}" for action, what in _ACTIONS.items())
        parser.add_argument("action", nargs="?", choices=tuple(_ACTIONS), default="show", help=text)
        parser.add_argument("words", nargs="*", metavar="WORD", help="what the action takes")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; 0, or 1 where there was nothing to forbid.

        Raises:
            UsageError: the words are not those that the action takes.
            KeyFileError: a file cannot be read or written, or is open to others.
        """
        ring, words = KeyRing(), list(arguments.words)
        match arguments.action, words:
            case "show", []:
                _show(ring, as_json=arguments.json)
            case "path", []:
                print(ring.folder)
            case "allow", [key, name]:
                ring.allow(parse_key(key), name)
                print(f"{name} may use this machine's devices")
            case "forbid", [what]:
                found = ring.forbid(what)
                print(f"{what} may no longer" if found else f"{what} was not on the list")
                return 0 if found else 1
            case "trust", [server, key]:
                address = parse_address(server.removeprefix("rpc://"))
                ring.trust(address.server, parse_key(key))
                print(f"{address.server} is known by its key")
            case action, _:
                raise UsageError(f"keys {action} takes other words: {_ACTIONS[action]}")
        return 0


def _show(ring: KeyRing, *, as_json: bool) -> None:
    public = ring.identity().public.hex()
    allowed, known = ring.allowed(), ring.known()
    if as_json:
        answer = {
            "key": public,
            "folder": str(ring.folder),
            "allowed": {key.hex(): name for key, name in allowed.items()},
            "known": {server: key.hex() for server, key in known.items()},
        }
        print(json.dumps(answer))
        return
    print(f"this machine  {public}")
    for key, name in allowed.items():
        print(f"allowed       {key.hex()}  {name}")
    for server, key in known.items():
        print(f"known         {key.hex()}  {server}")


command = KeysCommand()
