"""Write prompt ensembles: sentences for a normal and an abnormal thing, by the published lists and rules.

Every prompt is template(state(name)), for instance "a cropped photo of the" + "damaged bottle". The strings stand in
`ensembles.toml`.

    ensemble    normal  abnormal  order of enumeration            averaged as
    anoclip        462       462  template outer, state inner     raw mean, then unit length
    winclip        154        88  template outer, state inner     raw mean, then unit length
    aprilgan       245       175  state outer, template inner     unit length each, mean, unit length
    adaclip         28        20  state outer, template inner     unit length each, mean, unit length

Shapes: P prompts, E joint width, C = 2 (normal, abnormal).
"""

import tomllib
from dataclasses import dataclass
from importlib.resources import files

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.errors import ConfigError

_PUBLISHED = tomllib.loads(files("anomalens.methods.parts").joinpath("ensembles.toml").read_text(encoding="utf-8"))


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
        texture: whether the name is a texture; None looks it up in a published list, which knows five names only.
    """
    published = _PUBLISHED["anoclip"]
    texture = name in published["textures"] if texture is None else texture
    templates = [
        _in_domain(template, *domain)
        for domain in published["texture_domains" if texture else "object_domains"]
        for template in _PUBLISHED["winclip"]["templates"]
    ]
    return _compose(published["renamed"].get(name, name), published | {"templates": templates}, templates_first=True)


def winclip(name: str) -> Ensemble:
    """Write WinCLIP's compositional ensemble: 22 templates x 7 and 4 states, 154 + 88 sentences; `name` verbatim."""
    return _compose(name, _PUBLISHED["winclip"], templates_first=True)


def aprilgan(name: str) -> Ensemble:
    """Write APRIL-GAN's ensemble: 35 templates x 7 and 5 states, 245 + 175 sentences. `name` is used verbatim."""
    return _compose(name, _PUBLISHED["aprilgan"])


def adaclip(name: str) -> Ensemble:
    """Write AdaCLIP's ensemble: APRIL-GAN's states x its first four templates, 28 + 20 sentences.

    The paper names the kinds of template only; these four, and hyphens of the name read as spaces, are what its
    public code does.
    """
    published = _PUBLISHED["aprilgan"]
    return _compose(name.replace("-", " "), published | {"templates": published["templates"][:4]})


def _in_domain(template: str, noun: str, article: str) -> str:
    if template.startswith("a photo of"):
        template = article + template.removeprefix("a")
    return template.replace("photo", noun, 1)


def _compose(name: str, published: dict[str, list[str]], *, templates_first: bool = False) -> Ensemble:
    """Put `name` into states and these into templates; the outer loop runs over templates, or else over states."""
    if not name.strip():
        raise ConfigError('the object name is empty: say what the image shows, or "object" where nothing is known')

    def sentences(states: list[str]) -> tuple[str, ...]:
        things = [state.format(name) for state in states]
        if templates_first:
            return tuple(template.format(thing) for template in published["templates"] for thing in things)
        return tuple(template.format(thing) for thing in things for template in published["templates"])

    return Ensemble(sentences(published["normal"]), sentences(published["abnormal"]))
