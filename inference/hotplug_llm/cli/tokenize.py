"""`hotplug tokenize`: a text as a model's tokens."""

from __future__ import annotations

import argparse
import json

from hotplug.formats.gguf import GGUFFile
from hotplug_llm.cli.texts import read_text
from hotplug_llm.tokenizers import Tokenizer, from_gguf

__all__ = ["TokenizeCommand", "command"]


class TokenizeCommand:
    """Prints ids and the texts they stand for. Needs no device and reads no weights."""

    name = "tokenize"
    help = "show a text as a model's tokens"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("text", help='the text; "-" reads it from standard input')
        parser.add_argument("-m", "--model", required=True, metavar="FILE", help="a GGUF model")
        parser.add_argument(
            "--no-special",
            action="store_true",
            help="take marks such as <|im_end|> in the text as plain text, and add none",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Tokenise; 0."""
        with GGUFFile.open(arguments.model) as file:
            tokenizer = from_gguf(file.metadata)
            ids = tokenizer.encode(
                read_text(arguments.text),
                add_special=False if arguments.no_special else None,
                parse_special=not arguments.no_special,
            )
            tokens = [{"id": token, "text": _shown(tokenizer, token)} for token in ids]
        if arguments.json:
            print(json.dumps({"ids": ids, "tokens": tokens}, ensure_ascii=False))
        else:
            for row in tokens:
                print(f"{row['id']:>8}  {row['text']!r}")
        return 0


def _shown(tokenizer: Tokenizer, token: int) -> str:
    r"""A token's text; bytes that are no whole characters show as \xNN."""
    return tokenizer.token_bytes(token).decode("utf-8", errors="backslashreplace")


command = TokenizeCommand()
