"""Draw the prompts that the bundled backbone learns from: things, states, framings. No prompt is listed whole.

The framings span those of the published prompt ensembles (WinCLIP, APRIL-GAN, AnoCLIP) and the bare "object." of
learned prompts, so that every method's text falls inside what was seen. The words stand in vocabulary.toml.
"""

import tomllib
from collections.abc import Callable
from importlib.resources import files

from anomalens_lab.synthesis.captions import with_article
from anomalens_lab.synthesis.fields import Random, pick
from anomalens_lab.synthesis.words import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES

_WORDS = tomllib.loads(files("anomalens_lab").joinpath("vocabulary.toml").read_text(encoding="utf-8"))

Frame = Callable[[str], str]
"""Puts the words of a prompt around a thing with its state."""


def frame(rng: Random) -> Frame:
    """Draw a framing such as "a blurry industrial photo of the {}", a bare "{}", or stray words before the thing."""
    style = rng.random()
    if style < 0.12:
        return ("{}" if rng.random() < 0.5 else "{}.").format
    if style < 0.2:
        # Learned prompts put context vectors there.
        return (" ".join(pick(rng, _WORDS["stray"]) for _ in range(int(rng.integers(2, 13)))) + " {}.").format
    if style < 0.26:
        return f"{pick(rng, ('there is', 'this is'))} {pick(rng, ('a', 'the', 'one'))} {{}} in the scene.".format
    drawn = [str(pick(rng, _WORDS[part])) for part in ("qualities", "domains", "media")]
    drawn += ["of", pick(rng, _WORDS["articles"]), pick(rng, _WORDS["sizes"])]
    body = " ".join(word for word in drawn if word)
    article = "an" if body[0] in "aeiou" else "a"
    return f"{article} {body} {{}}{pick(rng, _WORDS['endings'])}".format


def thing(rng: Random, subjects: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> str:
    """Draw a name for the thing in an image: a generic word, one of `subjects`, any object, or one of `words`.

    Whether an image shows a defect must not depend on what its thing is called, so most names are wrong.
    """
    style = rng.random()
    if style < 0.35:
        return str(pick(rng, _WORDS["agnostic"]))
    if subjects and style < 0.6:
        return str(pick(rng, subjects))
    if words and style > 0.9:
        return str(pick(rng, words))
    return str(pick(rng, _WORDS["objects"]))


def state_pair(rng: Random, subjects: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> tuple[str, str]:
    """Draw a normal and an abnormal prompt about the same thing, mostly in the same framing."""
    name = thing(rng, subjects, words)
    if rng.random() < 0.25:
        # The wording of the captions: any state against any other, in grammatical English.
        normal, abnormal = (with_article(pick(rng, s).format(name)) for s in (NORMAL_STATES, ABNORMAL_STATES))
        return pick(rng, TEMPLATES).format(normal), pick(rng, TEMPLATES).format(abnormal)
    normal, abnormal = pick(rng, _WORDS["states"])
    first = frame(rng)
    second = first if rng.random() < 0.7 else frame(rng)
    return first(normal.format(name)), second(abnormal.format(name))
