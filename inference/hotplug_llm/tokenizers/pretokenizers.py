r"""How text is cut into words before BPE merges within each word.

A model's tokenizer was trained on words cut one way, and is only right for words cut the same way.
Files give the way a name in `tokenizer.ggml.pre`. Many names mean the same rules: the names follow
llama.cpp (src/llama-vocab.cpp), the expressions the models' own tokenizer.json files, which use
classes such as \p{Lu} that llama.cpp approximates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import regex

from hotplug.errors import ModelError

__all__ = ["PreTokenizer", "known_names", "pretokenizer"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str, *, letters: str = r"\p{L}", contractions: str = _CONTRACTIONS) -> str:
    """The expression of GPT-4 and its many descendants; they differ in how digits are grouped."""
    others = r"[^\s\p{L}\p{N}]" if letters == r"\p{L}" else rf"[^\s{letters}\p{{N}}]"
    return rf"{contractions}|{_LEAD}[{letters}]+|{digits}| ?{others}+[\r\n]*|{_SPACES}"


def _cased_words(digits: str, suffix: str = "") -> str:
    """As `_words`, but a word also ends where a capital follows a small letter."""
    return (
        rf"{_LEAD}{_UPPER}*{_LOWER}+{suffix}|{_LEAD}{_UPPER}+{_LOWER}*{suffix}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


# Some characters are escaped since normalising this file's text would make others of them.
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK_CJK = "[一-龥\u0800-一가-\ud7ff]+"


@dataclass(frozen=True)
class PreTokenizer:
    """One way of cutting text into words.

    Attributes:
        patterns: expressions, each applied to what the ones before it left together; a match
            becomes a piece of its own, and so does what is between matches.
        ignore_merges: a word that is a token is that token, whatever merging would give.
        add_bos: texts begin with the token `bos` unless the file says otherwise.
        byte_level: merging works on bytes in GPT-2's spelling; if not, on characters, with ▁ for
            spaces.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    byte_level: bool = True

    def split(self, text: str) -> list[str]:
        """The words of a text; joined, they are the text."""
        pieces: Iterable[str] = [text]
        for expression in self._compiled:
            pieces = _isolate(expression, pieces)
        return list(pieces)

    @cached_property
    def _compiled(self) -> list[regex.Pattern[str]]:
        return [regex.compile(pattern) for pattern in self.patterns]


def _isolate(expression: regex.Pattern[str], pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        done = 0
        for match in expression.finditer(piece):
            start, end = match.span()
            if start > done:
                yield piece[done:start]
            if end > start:
                yield piece[start:end]
            done = end
        if done < len(piece):
            yield piece[done:]


_FAMILIES: tuple[tuple[PreTokenizer, str], ...] = (
    (
        PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
        "default",
    ),
    (
        PreTokenizer((_GPT2,)),
        (
            "gpt-2 gpt2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code mpt "
            "gigachat a.x-4.0 mellum modern-bert roberta-bpe olmo jais trillion granite-docling "
            "exaone4"
        ),
    ),
    (
        PreTokenizer((r"\p{N}", _GPT2)),
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
    ),
    (
        PreTokenizer((_words(r"\p{N}{1,3}"),), ignore_merges=True, add_bos=True),
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    ),
    (PreTokenizer((_words(r"\p{N}{1,3}"),)), "dbrx smaug-bpe chatglm-bpe glm4"),
    (
        PreTokenizer((_words(r"\p{N}"),)),
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan megrez solar-open grok-2",
    ),
    (PreTokenizer((_words(r"\p{N}", letters=r"\p{L}\p{M}"),)), "qwen35"),
    (
        PreTokenizer((r"\p{N}{1,3}", _words(r"\p{N}+")), ignore_merges=True),
        "minicpm5",
    ),
    (
        PreTokenizer((_cased_words(r"\p{N}"),), ignore_merges=True, add_bos=True),
        "tekken",
    ),
    (
        PreTokenizer((_cased_words(r"\p{N}{1,3}", _CONTRACTIONS + "?"),)),
        "gpt-4o llama4 kanana2 talkie minimax-m2",
    ),
    (
        PreTokenizer(
            (
                r"\d{1,3}(?=(?:\d{3})*+\b)",
                _cased_words(r"\p{N}{1,3}", _CONTRACTIONS + "?"),
            )
        ),
        "tiny_aya cohere2moe",
    ),
    (
        PreTokenizer(
            (
                r"\p{N}{1,3}",
                _CJK,
                _ASCII_PUNCTUATION + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
            )
        ),
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    ),
    (
        PreTokenizer(
            (
                r"[\r\n]",
                rf"\s?[{_DEEPSEEK_LETTERS}]+",
                r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
                r"\s+$",
                _DEEPSEEK_CJK,
                r"\p{N}+",
            )
        ),
        "deepseek-llm",
    ),
    (
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")),
        "deepseek-coder",
    ),
    (
        PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
        "falcon",
    ),
    (PreTokenizer((r" ?[^(\s|.,!?…。，、।۔،)]+",)), "bloom poro-chat gpt3-finnish"),
    (PreTokenizer((r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}")), "viking"),
    (
        PreTokenizer(
            (
                (
                    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
                    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
                ),
            )
        ),
        "bailingmoe bailingmoe2 llada-moe",
    ),
    (
        PreTokenizer(
            (rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)
        ),
        "seed-coder",
    ),
    (
        PreTokenizer((rf"{_LEAD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",)),
        "ufakzeka",
    ),
    (PreTokenizer((r"[^\n]+|[\n]+",), byte_level=False), "gemma4 sarvam-moe"),
)

_BY_NAME = {name: family for family, names in _FAMILIES for name in names.split()}


def known_names() -> list[str]:
    """Every value of `tokenizer.ggml.pre` that is understood, sorted."""
    return sorted(_BY_NAME)


def pretokenizer(name: str) -> PreTokenizer:
    """The rules of a name, as `tokenizer.ggml.pre` has it.

    Raises:
        ModelError: the name is not known. Guessing would give other tokens than the model was
            trained with, and answers that are subtly worse.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise ModelError(
            f"the model cuts words by rules named {name!r} (tokenizer.ggml.pre), which hotplug "
            f"does not know; known are {', '.join(known_names())}",
            key="tokenizer.ggml.pre",
        )
    return found
