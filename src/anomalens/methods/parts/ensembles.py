"""Write prompt ensembles: sentences for a normal and an abnormal thing, by the published lists and rules.

Every prompt is template(state(name)), for instance "a cropped photo of the" + "damaged bottle". The strings are kept
exactly as published, missing articles ("a abnormal …") included, because every letter changes the embedding.

    ensemble    normal  abnormal  order of enumeration            averaged as
    anoclip        462       462  template outer, state inner     raw mean, then unit length
    winclip        154        88  template outer, state inner     raw mean, then unit length
    aprilgan       245       175  state outer, template inner     unit length each, mean, unit length
    adaclip         28        20  state outer, template inner     unit length each, mean, unit length

Shapes: P prompts, E joint width, C = 2 (normal, abnormal).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.errors import ConfigError

# WinCLIP's compositional ensemble (arXiv 2303.14814, section 3.1); the base list of AnoCLIP as well.
_PHOTOS = (
    "a cropped photo of the {}",
    "a cropped photo of a {}",
    "a close-up photo of a {}",
    "a close-up photo of the {}",
    "a bright photo of a {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a dark photo of a {}",
    "a jpeg corrupted photo of a {}",
    "a jpeg corrupted photo of the {}",
    "a blurry photo of the {}",
    "a blurry photo of a {}",
    "a photo of a {}",
    "a photo of the {}",
    "a photo of a small {}",
    "a photo of the small {}",
    "a photo of a large {}",
    "a photo of the large {}",
    "a photo of the {} for visual inspection",
    "a photo of a {} for visual inspection",
    "a photo of the {} for anomaly detection",
    "a photo of a {} for anomaly detection",
)
_FLAWLESS = (
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)

_WINCLIP_NORMAL = ("{}", *_FLAWLESS)
_WINCLIP_ABNORMAL = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

# AnoCLIP: two lists that mirror each other (arXiv 2308.15939).
_ANOCLIP_NORMAL = ("normal {}", *_FLAWLESS)
_ANOCLIP_ABNORMAL = (
    "damaged {}",
    "abnormal {}",
    "imperfect {}",
    "blemished {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)
# Domain variants: what "photo" becomes, and the article where it is the sentence's first noun.
_INDUSTRIAL = ("industrial photo", "an")
_OBJECT_DOMAINS = (_INDUSTRIAL, ("industrial image", "an"), ("manufacturing image", "a"))
_TEXTURE_DOMAINS = (_INDUSTRIAL, ("textural photo", "a"), ("surface picture", "a"))

TEXTURES = frozenset({"carpet", "leather", "grid", "tile", "wood"})
"""Names that AnoCLIP's published list takes for textures; every other name gets the prompts for objects."""

_ANOCLIP_RENAMED = {"macaroni1": "macaroni", "macaroni2": "macaroni"}

# APRIL-GAN (arXiv 2305.17382); AdaCLIP (arXiv 2407.15795) keeps its states and the first four templates.
_APRILGAN_ABNORMAL = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")
_APRILGAN_TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)


@dataclass(frozen=True)
class Ensemble:
    """Hold the sentences of both states, in the order of the published code."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]

    @property
    def prompts(self) -> list[str]:
        """Return all sentences, normal first: one request to the text tower."""
        return [*self.normal, *self.abnormal]

    def directions(self, embeddings: Tensor, *, unit_first: bool = False) -> Tensor:
        """Average to a unit vector a state: raw embeddings [..., P, E] of `prompts` -> [..., 2, E], normal first.

        `unit_first` normalises every sentence before the mean (APRIL-GAN, AdaCLIP); without it sentences with a long
        embedding weigh more (AnoCLIP, WinCLIP).
        """
        rows = F.normalize(embeddings, dim=-1) if unit_first else embeddings
        count = len(self.normal)
        means = [part.mean(dim=-2) for part in (rows[..., :count, :], rows[..., count:, :])]
        return F.normalize(torch.stack(means, dim=-2), dim=-1)


def anoclip(name: str, texture: bool | None = None) -> Ensemble:
    """Write AnoCLIP's domain-aware ensemble, 66 templates x 7 states: 462 + 462 sentences.

    Args:
        name: what the image shows; used verbatim, underscores kept, but "macaroni1" and "macaroni2" read "macaroni".
        texture: whether the name is a texture; None looks it up in `TEXTURES`, which knows five names only.
    """
    domains = _TEXTURE_DOMAINS if (name in TEXTURES if texture is None else texture) else _OBJECT_DOMAINS
    templates = [_in_domain(template, *domain) for domain in domains for template in _PHOTOS]
    name = _ANOCLIP_RENAMED.get(name, name)
    return _compose(name, templates, _ANOCLIP_NORMAL, _ANOCLIP_ABNORMAL, _templates_outer)


def winclip(name: str) -> Ensemble:
    """Write WinCLIP's compositional ensemble: 22 templates x 7 and 4 states, 154 + 88 sentences; `name` verbatim."""
    return _compose(name, _PHOTOS, _WINCLIP_NORMAL, _WINCLIP_ABNORMAL, _templates_outer)


def aprilgan(name: str) -> Ensemble:
    """Write APRIL-GAN's ensemble: 35 templates x 7 and 5 states, 245 + 175 sentences. `name` is used verbatim."""
    return _compose(name, _APRILGAN_TEMPLATES, _WINCLIP_NORMAL, _APRILGAN_ABNORMAL, _states_outer)


def adaclip(name: str) -> Ensemble:
    """Write AdaCLIP's ensemble: APRIL-GAN's states x its first four templates, 28 + 20 sentences.

    The paper names the kinds of template only; these four, and hyphens of the name read as spaces, are what its
    public code does.
    """
    templates = _APRILGAN_TEMPLATES[:4]
    return _compose(name.replace("-", " "), templates, _WINCLIP_NORMAL, _APRILGAN_ABNORMAL, _states_outer)


def _in_domain(template: str, noun: str, article: str) -> str:
    if template.startswith("a photo of"):
        template = article + template.removeprefix("a")
    return template.replace("photo", noun, 1)


def _compose(
    name: str,
    templates: Sequence[str],
    normal: Sequence[str],
    abnormal: Sequence[str],
    order: Callable[[Sequence[str], Sequence[str]], list[str]],
) -> Ensemble:
    if not name.strip():
        raise ConfigError('the object name is empty: say what the image shows, or "object" where nothing is known')
    first, second = (order(templates, [state.format(name) for state in states]) for states in (normal, abnormal))
    return Ensemble(tuple(first), tuple(second))


def _templates_outer(templates: Sequence[str], things: Sequence[str]) -> list[str]:
    return [template.format(thing) for template in templates for thing in things]


def _states_outer(templates: Sequence[str], things: Sequence[str]) -> list[str]:
    return [template.format(thing) for thing in things for template in templates]
