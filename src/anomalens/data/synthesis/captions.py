"""Plain English for the state of a thing: many paraphrases of sound and faulty, and words for each kind of defect.

Every sentence is built as template(state(subject)), in the manner of CLIP's prompt ensembles. Object-agnostic wording
("object", "surface", ...) takes the place of the subject in a share of the draws, so that words for the state do not
hang on words for the thing.
"""

from collections.abc import Sequence

from anomalens.data.synthesis.fields import Random
from anomalens.errors import ConfigError

KINDS: tuple[str, ...] = (
    "none",
    "scratch",
    "crack",
    "hole",
    "stain",
    "contamination",
    "missing",
    "deformation",
    "discolouration",
    "cut",
    "misprint",
    "broken",
    "misplaced",
    "worn",
    "thread",
    "dent",
)  # index = value in Scene.kinds

GENERIC: tuple[str, ...] = (
    "object", "surface", "part", "item", "product", "thing", "component", "material", "texture", "piece",
    "workpiece", "sample", "industrial product", "industrial part",
)  # fmt: skip

NORMAL_STATES: tuple[str, ...] = (
    "{}", "flawless {}", "perfect {}", "unblemished {}", "undamaged {}", "good {}", "intact {}", "normal {}", "clean {}",
    "pristine {}", "sound {}", "faultless {}", "spotless {}", "regular {}", "healthy {}", "complete {}", "{} without flaw",
    "{} without defect", "{} without damage", "{} without any defects", "{} without blemish", "{} in good condition",
    "{} in perfect condition", "{} with no flaws", "{} with no defects", "{} free of defects", "{} that passed inspection",
    "{} as it should be", "defect-free {}", "brand new {}", "acceptable {}", "non-defective {}", "{} with a regular appearance",
)  # fmt: skip

ABNORMAL_STATES: tuple[str, ...] = (
    "damaged {}", "defective {}", "faulty {}", "flawed {}", "blemished {}", "abnormal {}", "broken {}", "imperfect {}",
    "anomalous {}", "bad {}", "spoiled {}", "impaired {}", "{} with flaw", "{} with a flaw", "{} with defect", "{} with a defect",
    "{} with defects", "{} with damage", "{} with a blemish", "{} with an anomaly", "{} with something wrong", "{} in bad condition",
    "{} that failed inspection", "{} with a fault", "rejected {}", "{} with a visible defect", "unusual {}", "irregular {}",
    "{} with a small defect", "{} with an imperfection", "{} that is damaged", "{} that is not as it should be",
)  # fmt: skip

TEMPLATES: tuple[str, ...] = (
    "{}", "{}.", "a photo of {}", "a photo of {}.", "a close-up photo of {}", "a cropped photo of {}", "an industrial image of {}",
    "a picture of {}", "an image of {}", "a bright photo of {}", "a dark photo of {}", "a blurry photo of {}", "a low resolution photo of {}",
    "a jpeg corrupted photo of {}", "a photo of {} for visual inspection", "a photo of {} for anomaly detection", "an inspection image of {}",
    "a macro photo of {}", "a black and white photo of {}", "there is {} in the scene", "this is {}", "this is a photo of {}",
    "a quality control photo of {}", "one photo of {}", "a good photo of {}", "a close-up of {}", "a view of {}",
)  # fmt: skip

# For each kind: states with a place for the subject, and bare phrases for a patch that shows it.
_STATES: dict[str, tuple[str, ...]] = {
    "scratch": ("{} with a scratch", "scratched {}", "{} with scratches", "a scratch on the {}", "{} with a scratch mark", "{} with a scrape"),
    "crack": ("{} with a crack", "cracked {}", "{} with cracks", "a crack in the {}", "fractured {}", "{} with a fissure", "{} with a split"),
    "hole": ("{} with a hole", "a hole in the {}", "punctured {}", "{} with holes", "{} with a pit", "{} with a blowhole", "pierced {}", "perforation in the {}"),
    "stain": ("{} with a stain", "stained {}", "a stain on the {}", "dirty {}", "{} with spots", "{} with a dark spot", "{} with a smudge", "oil on the {}"),
    "contamination": ("{} with contamination", "contaminated {}", "{} with a foreign body", "{} with foreign material", "{} with dirt on it", "dust on the {}", "{} with an unwanted object on it", "{} with debris"),
    "missing": ("{} with a missing part", "incomplete {}", "{} with a piece missing", "a missing piece in the {}", "{} lacking a part", "{} with a gap"),
    "deformation": ("deformed {}", "bent {}", "warped {}", "{} with a deformation", "misshapen {}", "distorted {}", "{} with a fold", "twisted {}", "crooked {}"),
    "discolouration": ("discoloured {}", "discolored {}", "{} with discoloration", "{} with a wrong colour", "{} with the wrong color", "faded {}", "{} with uneven colour", "{} with a colour defect"),
    "cut": ("{} with a cut", "cut {}", "a cut in the {}", "{} with a slit", "slashed {}", "torn {}", "{} with a tear"),
    "misprint": ("{} with a misprint", "{} with a faulty print", "misprinted {}", "{} with a wrong imprint", "{} with bad printing", "{} with unwanted marks", "{} with a print defect"),
    "broken": ("broken {}", "chipped {}", "{} with a chipped edge", "{} with a break", "{} with a piece broken off", "fractured {}", "crumbled {}", "shattered {}"),
    "misplaced": ("{} with a misplaced part", "misaligned {}", "{} with a part in the wrong place", "{} with a shifted piece", "wrongly assembled {}", "{} with a rotated piece", "flipped {}"),
    "worn": ("worn {}", "{} with a worn area", "abraded {}", "{} with a rough area", "rubbed {}", "{} with wear", "{} with a blurred area", "corroded {}", "eroded {}"),
    "thread": ("{} with a thread on it", "frayed {}", "{} with a loose thread", "a hair on the {}", "{} with a fibre on it", "{} with fraying", "{} with a stray thread"),
    "dent": ("dented {}", "{} with a dent", "a dent in the {}", "{} with a bump", "{} with a blister", "{} with a bulge", "{} with bubbles"),
}  # fmt: skip
_PHRASES: dict[str, tuple[str, ...]] = {
    "none": ("a flawless surface", "a normal surface", "a good part", "an intact surface", "an undamaged area", "no defect", "a clean surface", "a perfect surface", "a normal area", "a sound part", "normal", "flawless"),
    "scratch": ("a scratch", "a scratched surface", "scratches", "a scratch mark", "a scrape", "a scratched part"),
    "crack": ("a crack", "a cracked surface", "cracks", "a fissure", "a fracture", "a cracked part"),
    "hole": ("a hole", "a hole in the surface", "holes", "a pit", "a blowhole", "a puncture", "a cavity"),
    "stain": ("a stain", "a stained surface", "a spot", "a smudge", "dirt", "a dirty surface", "a blot"),
    "contamination": ("contamination", "a foreign body", "foreign material", "a particle", "debris", "dust", "a contaminated surface"),
    "missing": ("a missing part", "a missing piece", "something missing", "an incomplete part", "a gap", "an absent piece"),
    "deformation": ("a deformation", "a bent part", "a deformed part", "a warped surface", "a distortion", "a fold", "a bend"),
    "discolouration": ("a discolouration", "discoloration", "a wrong colour", "a discoloured area", "a faded area", "uneven colour"),
    "cut": ("a cut", "a cut surface", "a slit", "a tear", "a slash", "a cut part"),
    "misprint": ("a misprint", "a faulty print", "a printing defect", "a wrong imprint", "unwanted printing", "a double print"),
    "broken": ("a break", "a broken part", "a chipped edge", "a chip", "a broken edge", "a piece broken off"),
    "misplaced": ("a misplaced part", "a misaligned part", "a part in the wrong place", "a shifted piece", "a displaced piece"),
    "worn": ("a worn area", "wear", "abrasion", "a rough area", "a worn surface", "a blurred area", "erosion"),
    "thread": ("a thread", "a loose thread", "a hair", "a fibre", "fraying", "a stray fibre"),
    "dent": ("a dent", "a dented surface", "a bump", "a blister", "a bulge", "an indentation"),
}  # fmt: skip
# Words that say "faulty" whatever the kind, for patches.
_ANY_DEFECT: tuple[str, ...] = (
    "a defect", "a flaw", "damage", "a damaged surface", "an anomaly", "a defective area", "an abnormal area", "a faulty part",
    "a blemish", "a damaged part", "an imperfection", "abnormal",
)  # fmt: skip

# Plural and mass nouns take no article; the last word decides.
_BARE = frozenset(
    "leather wood timber denim cloth textile canvas fabric knitwear felt fleece fur wool pavement tarmac plaster concrete"
    " paper cardboard foil glass iron steel chocolate cheese pasta macaroni upholstery vinyl velvet silicon texture"
    " packaging hair straw material fibre sandpaper stone food wrap".split()
)


def with_article(words: str) -> str:
    """The noun phrase with "a" or "an" before it, or bare when it is plural, a mass noun or has an article already."""
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
    if last in _BARE or (last.endswith("s") and not last.endswith(("ss", "us", "glass"))):
        return words
    vowel = words[0] in "aeiou" and not words.startswith(("uni", "use", "one"))
    return f"{'an' if vowel else 'a'} {words}"


def _draw(rng: Random, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


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
    """`count` captions of a thing whose state is given by `kinds` (empty or "none" only: sound).

    `generic_share` of them speak of an "object" or "surface" instead of the subject; of the faulty ones,
    `specific_share` name the kind. For the captions of the other state, pass other kinds (see `opposite_captions`).
    Raises ConfigError on an unknown kind.
    """
    faults = _check(kinds)
    out = []
    for _ in range(count):
        noun = _draw(rng, GENERIC) if rng.random() < generic_share else subject
        if not faults:
            options: Sequence[str] = NORMAL_STATES
        elif rng.random() < specific_share:
            options = _STATES[_draw(rng, faults)]
        else:
            options = ABNORMAL_STATES
        state = with_article(_draw(rng, options).format(noun))
        out.append(_draw(rng, TEMPLATES).format(state))
    return out


def opposite_captions(
    subject: str, kinds: Sequence[str], rng: Random, *, count: int = 1, generic_share: float = 0.35
) -> list[str]:
    """`count` captions that are false of the thing: sound for a faulty one, some fault for a sound one."""
    if _check(kinds):
        return state_captions(subject, (), rng, count=count, generic_share=generic_share)
    return [
        state_captions(subject, (_draw(rng, KINDS[1:]),), rng, generic_share=generic_share)[0] for _ in range(count)
    ]


def kind_phrases(kind: str) -> tuple[str, ...]:
    """Short phrases for a patch that shows `kind` ("none": a sound patch). Raises ConfigError on an unknown kind."""
    _check((kind,))
    return _PHRASES[kind]


def defect_phrases() -> tuple[str, ...]:
    """Short phrases for a patch with any defect, whatever its kind."""
    return _ANY_DEFECT
