from collections.abc import Sequence

import numpy as np
import pytest

from anomalens.errors import ConfigError
from anomalens_lab.synthesis import (
    GENERIC,
    KINDS,
    SynthesisConfig,
    kind_phrases,
    scene,
    state_captions,
)
from anomalens_lab.synthesis.captions import with_article
from anomalens_lab.synthesis.words import ABNORMAL_STATES, KIND_STATES, NORMAL_STATES, TEMPLATES


def state_of(caption: str, subjects: Sequence[str]) -> set[str]:
    """Return the state a caption speaks of: undo the template, the article and the noun."""
    state = set()
    for template in TEMPLATES:
        before, after = template.split("{}")
        if not (caption.startswith(before) and caption.endswith(after)):
            continue
        inner = caption[len(before) : len(caption) - len(after) or None]
        for noun in subjects:
            for name, states in (("normal", NORMAL_STATES), ("abnormal", ABNORMAL_STATES), *KIND_STATES.items()):
                state |= {name for s in states if with_article(s.format(noun)) == inner}
    return state


def test_captions_never_contradict_the_scene() -> None:
    config = SynthesisConfig(size=64)
    for seed in range(80):
        s = scene(seed, config)
        state = state_of(s.caption, (s.subject, *GENERIC))
        assert state
        if s.anomalous:
            assert state & {"abnormal", *s.kind_names}
            assert "normal" not in state
        else:
            assert state == {"normal"}
        assert all(w in kind_phrases(k) for w, k in zip(s.defect_words, s.kind_names, strict=True))


def test_there_are_many_ways_to_say_it() -> None:
    rng = np.random.default_rng(0)
    assert len(set(state_captions("gear", (), rng, count=400))) > 250
    assert len(set(state_captions("gear", ("crack",), rng, count=400))) > 250
    assert len(state_captions("gear", ("crack",), rng, count=0)) == 0


def test_generic_and_specific_shares() -> None:
    rng = np.random.default_rng(0)
    plain = state_captions("gear", ("hole",), rng, count=300, generic_share=0, specific_share=1)
    assert all("gear" in c for c in plain)
    assert not any("gear" in c for c in state_captions("gear", (), rng, count=300, generic_share=1))


def test_normal_and_abnormal_words_do_not_meet() -> None:
    assert not set(NORMAL_STATES) & set(ABNORMAL_STATES)
    assert set(KIND_STATES) == set(KINDS[1:])
    assert not set(kind_phrases("none")) & {p for k in KINDS[1:] for p in kind_phrases(k)}


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        ("gear", "a gear"),
        ("intact gear", "an intact gear"),
        ("object with a hole", "an object with a hole"),
        ("leather", "leather"),
        ("gears without flaw", "gears without flaw"),
        ("glass jar", "a glass jar"),
        ("a hole in the leather", "a hole in the leather"),
        ("unusual part", "an unusual part"),
        ("row of candles", "a row of candles"),
    ],
)
def test_articles(words: str, phrase: str) -> None:
    assert with_article(words) == phrase


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="sneeze"):
        state_captions("gear", ("sneeze",), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="sneeze"):
        kind_phrases("sneeze")
