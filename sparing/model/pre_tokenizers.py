"""The pre-tokenizers of byte-level tokenizers, by their names in llama.cpp.

The regular expressions come from the models' own ``tokenizer.json``.
"""

from dataclasses import dataclass

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WHITE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{SIGNS}|{WHITE}"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{SIGNS}|{WHITE}"
SEED = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{WHITE}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = (
    rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{WHITE}"
)
GPT4O = (
    rf"{BEFORE}{UPPER}*{LOWER}+{CONTRACTIONS}?|{BEFORE}{UPPER}+{LOWER}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{WHITE}"
)
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{WHITE}"
)


@dataclass(frozen=True)
class PreTokenizer:
    """A way to split text into words.

    ``patterns``: applied in order; each splits the pieces so far at both ends of every match
    ``whole_words``: a word in the vocabulary is one token, without merges
    ``bos``: a text begins with the start token unless the file says otherwise
    ``composed``: text is first normalized to NFC
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False
    composed: bool = False


QWEN = PreTokenizer((QWEN2,), composed=True)
GPT = PreTokenizer((GPT2,))
DIGITS = PreTokenizer((r"\p{N}", GPT2))
PRE_TOKENIZERS = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    "gpt-2": GPT,
    "olmo": GPT,
    "mpt": GPT,
    "phi-2": GPT,
    "llama-bpe": PreTokenizer((LLAMA3,), whole_words=True, bos=True),
    "llama3": PreTokenizer((LLAMA3,), whole_words=True, bos=True),
    "llama-v3": PreTokenizer((LLAMA3,), whole_words=True, bos=True),
    "falcon3": PreTokenizer((LLAMA3,), whole_words=True, bos=True),
    "dbrx": PreTokenizer((LLAMA3,)),
    "smaug-bpe": PreTokenizer((LLAMA3,)),
    "qwen2": QWEN,
    "deepseek-r1-qwen": QWEN,
    "megrez": QWEN,
    "stablelm2": PreTokenizer((QWEN2,)),
    "seed-coder": PreTokenizer((SEED,)),
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "refact": DIGITS,
    "codeshell": DIGITS,
    "minerva-7b": DIGITS,
    "tekken": PreTokenizer((TEKKEN,), whole_words=True, bos=True),
    "gpt-4o": PreTokenizer((GPT4O,)),
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
    ),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-퟿]+",
            r"\p{N}+",
        )
    ),
    "deepseek-v3": PreTokenizer((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3)),
}
