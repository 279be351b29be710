"""Choose the sentences of training: those of each step, and a bank of sentences that a teacher has read once."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomalens.backbones.tokenizer import token_strings, tokenize
from anomalens.files import atomic_write, digest
from anomalens_lab.recipe import PretrainConfig
from anomalens_lab.shards import Batch
from anomalens_lab.synthesis.captions import kind_phrases
from anomalens_lab.synthesis.fields import Random, pick
from anomalens_lab.synthesis.words import KINDS
from anomalens_lab.teacher import token_table
from anomalens_lab.vocabulary import frame, state_pair, thing

Teacher = Callable[[Sequence[str]], Tensor]
"""Reads S sentences and returns unit vectors [S, TAUGHT_WIDTH]."""


@dataclass
class Sentences:
    """Hold the prompts of one step, and the place of each group among them."""

    texts: list[str]
    parts: dict[str, slice]

    @classmethod
    def draw(cls, rng: Random, batch: Batch, pairs: int, words: tuple[str, ...]) -> "Sentences":
        """Draw captions of the batch, pairs of states of anything, and a phrase for each kind of defect."""
        subjects = tuple(batch.subjects)
        drawn = [state_pair(rng, subjects, words) for _ in range(pairs)]
        groups = {
            "captions": batch.captions,
            "normal": [normal for normal, _ in drawn],
            "abnormal": [abnormal for _, abnormal in drawn],
            "kinds": [str(pick(rng, kind_phrases(kind))) for kind in KINDS],
        }
        texts: list[str] = []
        parts = {}
        for name, group in groups.items():
            parts[name] = slice(len(texts), len(texts) + len(group))
            texts += group
        return cls(texts, parts)


def common_words() -> tuple[str, ...]:
    """Return some thousand whole English words of CLIP's vocabulary: names that no caption holds."""
    return tuple(w for w in token_strings()[2000:14000] if w.isalpha() and w.isascii() and len(w) > 3)


def sentence_bank(rng: Random, count: int, words: tuple[str, ...]) -> list[str]:
    """Draw sentences for the teacher: states and kinds of all sorts of things in all sorts of framings."""
    bank: list[str] = []
    while len(bank) < count:
        name = thing(rng, (), words)
        kind = str(pick(rng, kind_phrases(str(pick(rng, KINDS)))))
        bank += [*state_pair(rng, (), words), name, kind, frame(rng)(name), f"{name} with {kind}"]
    return bank[:count]


@dataclass
class Lessons:
    """Hold the bank of sentences with the teacher's answers."""

    # Names that prompts may speak of.
    words: tuple[str, ...]
    # [S, 77] int64, the sentences as tokens.
    ids: Tensor
    # [S, TAUGHT_WIDTH], the teacher's vectors, of unit length.
    taught: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def read_lessons(config: PretrainConfig, kept: Path, teacher: Callable[[], Teacher]) -> tuple[Lessons, Tensor]:
    """Draw the sentence bank and let the teacher read it and CLIP's vocabulary: lessons, token table [vocab, D].

    The teacher's answers are kept as a file in the folder `kept`; the teacher is made only where they are not there.
    """
    words = common_words()
    bank = sentence_bank(np.random.default_rng((config.seed, 2)), config.sentences, words)
    # Named by the sentences: answers to other sentences must never be taken for answers to these.
    name = digest("\n".join([*bank, *token_strings()]))[:16]
    path = kept / f"text-{name}-{config.width}.pt"
    if not path.exists():
        read = teacher()
        raw = io.BytesIO()
        torch.save({"taught": read(bank), "table": token_table(read, config.width)}, raw)
        atomic_write(path, raw.getvalue())
    saved = torch.load(path, weights_only=True)
    return Lessons(words, tokenize(bank), saved["taught"]), saved["table"]
