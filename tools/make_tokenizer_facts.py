"""Writes what other tokenizers say, for tests/inference to compare with.

    python tools/make_tokenizer_facts.py MODEL.gguf tests/inference/data

MODEL is the demo model, SmolLM2-135M-Instruct. Needs the packages `tokenizers` (0.23.3 was used)
and `sentencepiece` (0.2.3), which are no dependency of hotplug: use an environment of their own,
with NumPy, and framework/ on PYTHONPATH.

Three files: ids of SmolLM2's vocabulary by `tokenizers`; how the expressions of well-known models,
as in their tokenizer.json, cut text; and a small SentencePiece model with the ids that it gives.
"""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from hotplug.formats.gguf import GGUFFile

SEED = 20261122

HAND_MADE = [
    "Hello, world!",
    " leading",
    "trailing ",
    "  two  spaces   three    four     ",
    "\n",
    "\n\n\n",
    "\r\n\r\n",
    " \n \n ",
    "\t\tdef f(x):\n\t\treturn x**2  # comment\n",
    "I'm you're HE'LL it'S we'Ve o'clock 'twas rock'n'roll",
    "don\u2019t can\u2019t",
    "'\u017f '\u017ftrange",
    "1234567890 12 345 6789 3.14159 1,000,000 0x1F 1e-10",
    "\u0661\u0662\u0663 \u00bd \u2167 \u00b2 \u4e00\u4e8c",
    "caf\u00e9 cafe\u0301 na\u00efve Stra\u00dfe \u0130stanbul \u01c5ep \u02b0",
    (
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f "
        "\uc548\ub155\ud558\uc138\uc694"
    ),
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u270c\U0001f3fd",
    "a\u00a0b\u2003c\u3000d\u200be\u2028f\u0085g",
    "\x00\x01\x02\x03\x05\x07\x08\x0b\x0c\x0e\x1b\x1c\x7f\x80\x9f\ufeff\ufffd",
    "\u2581under\u2581 \u2581\u2581 _ __ ___",
    '#!/bin/sh\nfor i in $(seq 1 10); do echo "$i" >> /tmp/x; done',
    '<html><body class="a b">&amp;</body></html>',
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x''y';",
    "camelCase PascalCase snake_case SCREAMING_CASE kebab-case XMLHttpRequest iPhone",
    "...!!!???---===***///\\\\\\|||~~~```",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|endoftext|>",
    "<|im_start <|im_end| im_end|> <|im_<|im_end|>",
    "<repo_name><reponame><file_sep>a<filename>b<gh_stars>",
    "x<|endoftext|> y <|endoftext|>",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 300,
    " " * 130 + "x",
    "ab" * 100 + "!" * 40,
    "\u00e9" * 50 + "\u4e2d" * 50 + "\U0001f600" * 20,
    "",
]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789\u0663\u00bd\u2168\u00b3",
    "     \n\n\t\r\u00a0\u3000",
    ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`\u2019\u201c\u2026\uff0c\u3002",
    "\u00e9\u00df\u00f1\u0131\u0301\u0308\u01c5\u02b0\u00aa\u0430\u0416\u03c3\u03a9",
    "\u4f60\u597d\u4e16\u3042\u30ab\u30fc\ud55c\u0e01\u0e33\u0915\u094d\u0937\u0627\u064b",
    "\U0001f600\u200d\ufe0f\U0001f3fd\u20ac\u00a9\u2603\u0007\u001f\u200b",
    ["'s", "'LL", "'re", "<|im_end|>", "the", " and", "\n\n", "://", "123", "\r\n"],
]


def random_texts(count: int) -> list[str]:
    source = random.Random(SEED)
    texts = []
    for _ in range(count):
        alphabets = source.sample(ALPHABETS, source.randint(1, 5))
        length = source.randint(1, 40)
        texts.append("".join(source.choice(source.choice(alphabets)) for _ in range(length)))
    return texts


def smollm(path: Path) -> list[dict[str, Any]]:
    """Ids by `tokenizers`, its pre-tokenizer set up as in the model's tokenizer.json."""
    with GGUFFile.open(path) as file:
        fields = file.fields("tokenizer.ggml.")
        tokens = list(fields.require_array("tokens", str))
        types = list(fields.require_array("token_type", int))
        merges = [tuple(merge.split(" ")) for merge in fields.require_array("merges", str)]
    model = models.BPE(vocab={text: i for i, text in enumerate(tokens)}, merges=merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(tokens, types, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return [
        {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
        for text in HAND_MADE + random_texts(300)
    ]


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
EXPRESSIONS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [
        (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ],
    "qwen2": [
        (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ],
    "qwen35": [
        (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ],
    "tekken": [
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ],
    "gpt-4o": [
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        (
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
    ],
    "deepseek-coder": [
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
        r"\p{N}",
    ],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
    "minicpm5": [
        r"\p{N}{1,3}",
        (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
    ],
    "bailingmoe": [
        (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
        )
    ],
    "bloom": [r" ?[^(\s|.,!?…。，、।۔،)]+"],
}


def splits() -> dict[str, Any]:
    """Lengths of the words that each model's expressions cut texts into."""
    texts = [text for text in HAND_MADE if text] + random_texts(120)
    lengths = {}
    for name, patterns in EXPRESSIONS.items():
        rules = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        )
        lengths[name] = [[len(w) for w, _ in rules.pre_tokenize_str(t)] for t in texts]
    return {"texts": texts, "lengths": lengths}


def sentencepiece_model() -> dict[str, Any]:
    """A small SentencePiece BPE model, and ids that it gives; no space is put before text."""
    trained = io.BytesIO()
    corpus = Path(__file__).read_text(encoding="utf-8").splitlines() + HAND_MADE
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=trained,
        vocab_size=700,
        model_type="bpe",
        character_coverage=0.98,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    ids = range(model.get_piece_size())
    texts = [text.replace("\0", "") for text in HAND_MADE + random_texts(150)]
    return {
        "tokens": [model.id_to_piece(i) for i in ids],
        "scores": [model.get_score(i) for i in ids],
        "token_type": [_token_type(model, i) for i in ids],
        "cases": [{"text": t, "ids": model.encode(t)} for t in texts if "\u2581" not in t],
    }


def _token_type(model: sentencepiece.SentencePieceProcessor, token: int) -> int:
    if model.is_unknown(token):
        return 2
    if model.is_control(token):
        return 3
    if model.is_unused(token):
        return 5
    return 6 if model.is_byte(token) else 1


def main() -> None:
    model, folder = map(Path, sys.argv[1:])
    facts = {
        "smollm_ids": smollm(model),
        "word_splits": splits(),
        "sentencepiece": sentencepiece_model(),
    }
    for name, content in facts.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
