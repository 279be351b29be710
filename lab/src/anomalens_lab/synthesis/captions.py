"""Describe the state of a thing in plain English: many ways to say sound and faulty, and words for each kind.

Every sentence is built as template(state(subject)), in the manner of CLIP's prompt ensembles. Object-agnostic wording
("object", "surface", ...) takes the place of the subject in a share of the draws, so that words for the state do not
hang on words for the thing.
"""

from collections.abc import Sequence

from anomalens.errors import ConfigError
from anomalens_lab.synthesis.fields import Random, pick
from anomalens_lab.synthesis.words import (
    ABNORMAL_STATES,
    BARE_NOUNS,
    GENERIC,
    KIND_PHRASES,
    KIND_STATES,
    KINDS,
    NORMAL_STATES,
    TEMPLATES,
)


def with_article(words: str) -> str:
    """Put "a" or "an" before a noun phrase, but for a plural, a mass noun, or one that has an article already."""
    head = (
        words.split(" with ")[0]
        .split(" without ")[0]
        .split(" of ")[0]
        .split(" that ")[0]
        .split(" in ")[0]
        .split(" as ")[0]
    )
    last = head.split(" ")[-1]
    if words.startswith(("a ", "an ", "the ")):
        return words
    if last in BARE_NOUNS or (last.endswith("s") and not last.endswith(("ss", "us", "glass"))):
        return words
    vowel = words[0] in "aeiou" and not words.startswith(("uni", "use", "one"))
    return f"{'an' if vowel else 'a'} {words}"


def _check(kinds: Sequence[str]) -> list[str]:
    unknown = [k for k in kinds if k not in KINDS]
    if unknown:
        raise ConfigError(f"unknown defect kinds {unknown}; expected names among {list(KINDS[1:])}")
    return [k for k in kinds if k != "none"]


def state_captions(
    subject: str,
    kinds: Sequence[str],
    rng: Random,
    *,
    count: int = 1,
    generic_share: float = 0.35,
    specific_share: float = 0.6,
) -> list[str]:
    """Write `count` captions of a thing whose state is given by `kinds` (empty or "none" only: sound).

    `generic_share` of them speak of an "object" or "surface" instead of the subject; of the faulty ones,
    `specific_share` name the kind. For the captions of the other state, pass other kinds.
    Raises ConfigError on an unknown kind.
    """
    faults = _check(kinds)
    out = []
    for _ in range(count):
        noun = pick(rng, GENERIC) if rng.random() < generic_share else subject
        if not faults:
            options: Sequence[str] = NORMAL_STATES
        elif rng.random() < specific_share:
            options = KIND_STATES[pick(rng, faults)]
        else:
            options = ABNORMAL_STATES
        state = with_article(pick(rng, options).format(noun))
        out.append(pick(rng, TEMPLATES).format(state))
    return out


def kind_phrases(kind: str) -> tuple[str, ...]:
    """Write short phrases for a patch that shows `kind` ("none": sound). Raises ConfigError for another kind."""
    _check((kind,))
    return KIND_PHRASES[kind]
