"""Read the words of captions from words.toml: kinds of defects, states, templates, and phrases for each kind."""

import tomllib
from importlib.resources import files

_WORDS = tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))

KINDS: tuple[str, ...] = tuple(kind["name"] for kind in _WORDS["kind"])
"""Kinds of defects; the index of a kind is its value in `Scene.kinds`, and the first is "none"."""
KIND_STATES: dict[str, tuple[str, ...]] = {
    kind["name"]: tuple(kind["states"]) for kind in _WORDS["kind"] if "states" in kind
}
KIND_PHRASES: dict[str, tuple[str, ...]] = {kind["name"]: tuple(kind["phrases"]) for kind in _WORDS["kind"]}
GENERIC: tuple[str, ...] = tuple(_WORDS["generic"])
NORMAL_STATES: tuple[str, ...] = tuple(_WORDS["normal_states"])
ABNORMAL_STATES: tuple[str, ...] = tuple(_WORDS["abnormal_states"])
TEMPLATES: tuple[str, ...] = tuple(_WORDS["templates"])
BARE_NOUNS: frozenset[str] = frozenset(_WORDS["bare_nouns"])
