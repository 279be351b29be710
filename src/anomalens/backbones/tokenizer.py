"""Turn text into CLIP's byte-pair token ids, by the `tokenizers` library and the vocabulary in this package.

The ids are those of the reference tokenizer (OpenAI's SimpleTokenizer, as open_clip carries it, with its text repair by
the `ftfy` package). Known differences, all outside ordinary prompts:

* mojibake is not repaired ("Ã¼" stays two letters; ftfy guesses "ü"), HTML entities nested more than three deep stay,
  capitals-only entities ("&EACUTE;") and terminal colour codes are left as text;
* a control token spelled out in a text ("<end_of_text>", "<|endoftext|>") is ordinary text, so no name can end a prompt
  early; the references disagree on the spelling they would obey;
* characters younger than the Unicode tables of the installed `tokenizers` split as unassigned ones.

Source: https://github.com/openai/CLIP, clip/simple_tokenizer.py (MIT); the vocabulary's notice is in its folder.
"""

import gzip
import html
import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from anomalens.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCAB = 49408  # 2 x 256 bytes, 48,894 merges, 2 control tokens
START, END = 49406, 49407
CONTEXT = 77

# What separates words before byte pairs are merged. The reference compiles this with IGNORECASE, which lets the long s
# (ſ) stand for s and drops U+0345, whose upper case is a letter; the text itself is lower case by then.
_PIECES = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{0345}]+"


def tokenize(texts: Sequence[str], context: int = CONTEXT) -> torch.Tensor:
    """Return the token ids of every text between the control tokens, zero-padded.

    Args:
        texts: P texts; case, repeated blanks and HTML entities do not matter.
        context: L, positions a row has; 77 for all of CLIP's text towers.

    Returns:
        [P, L] int64. A text that does not fit is cut and still ends in the end-of-text token; a warning names it.

    Raises:
        ConfigError: a bare string instead of a sequence, or a context too short for the two control tokens.
    """
    if context < 2:
        raise ConfigError(f"a context of {context} tokens has no room for the two control tokens; give 2 or more")
    rows = encode(texts)
    out = torch.zeros(len(rows), context, dtype=torch.long)
    for row, ids, text in zip(out, rows, texts, strict=True):
        if len(ids) > context:
            shown = text if len(text) <= 60 else text[:57] + "..."
            warnings.warn(f"text of {len(ids)} tokens cut to {context}, its end is not read: {shown!r}", stacklevel=2)
            ids = [*ids[: context - 1], END]
        row[: len(ids)] = torch.tensor(ids)
    return out


def encode(texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of every text, from the start to the end control token, at full length.

    Raises ConfigError where a bare string is given: its letters would pass for texts.
    """
    if isinstance(texts, str):
        raise ConfigError(f"expected a sequence of texts, found the single text {texts[:60]!r}; put it in a list")
    encoded = _library().encode_batch([clean(text) for text in texts], add_special_tokens=False)
    return [[START, *item.ids, END] for item in encoded]


def clean(text: str) -> str:
    """Return the text that is split: entities resolved, typographic variants made plain, lower case, single blanks.

    Equal to the reference's cleaning up to the differences named in the module text.
    """
    if not text.isascii():
        # Halves of UTF-16 pairs, as undecodable file names hold them: paired ones join, others become U+FFFD.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "<" not in text:  # where a text holds a tag, the reference leaves entities to the last step
        text = html.unescape(text)
    text = unicodedata.normalize("NFC", text.translate(_plain_variants()))
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


@cache
def _plain_variants() -> dict[int, str | None]:
    """Return the single characters that ftfy replaces or removes: control characters, C1 bytes meant as Windows-1252,
    curly quotes, Latin ligatures, full and half width."""
    removed = [*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]
    table: dict[int, str | None] = dict.fromkeys(removed)
    table |= dict.fromkeys([0x2BC, *range(0x2018, 0x201C)], "'")
    table |= dict.fromkeys(range(0x201C, 0x2020), '"')
    ligatures = "Ĳ:IJ ĳ:ij ŉ:'n Ǳ:DZ ǲ:Dz ǳ:dz Ǆ:DŽ ǅ:Dž ǆ:dž Ǉ:LJ ǈ:Lj ǉ:lj Ǌ:NJ ǋ:Nj ǌ:nj"
    ligatures += " ﬀ:ff ﬁ:fi ﬂ:fl ﬃ:ffi ﬄ:ffl ﬅ:ſt ﬆ:st"
    table |= {ord(pair[0]): pair[2:] for pair in ligatures.split()}
    wide = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)}
    table |= {code: plain for code, plain in wide.items() if plain != chr(code)}
    for code in range(0x80, 0xA0):
        meant = bytes([code]).decode("cp1252", "ignore")
        if meant:
            table[code] = table.get(ord(meant), meant)
    return table


@cache
def token_strings() -> tuple[str, ...]:
    """Return the text of each token, by id: without a blank at the end of a word, "�" for a part of a character."""
    from tokenizers.decoders import ByteLevel

    library, decoder = _library(), ByteLevel()
    return tuple(decoder.decode([str(library.id_to_token(i)).removesuffix("</w>")]) for i in range(VOCAB))


@cache
def _library() -> "Tokenizer":
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Split
    from tokenizers.pre_tokenizers import Sequence as Steps

    packed = files("anomalens.backbones").joinpath("vocabulary/merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    # Printable bytes are written as themselves, the others as the characters from U+0100 on; in that order they are
    # the first ids.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(code) for code in [*printable, *range(0x100, 0x200 - len(printable))]]
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<start_of_text>", "<end_of_text>"])}
    library = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    library.pre_tokenizer = Steps(
        [
            Split(Regex(_PIECES), behavior="removed", invert=True),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return library
