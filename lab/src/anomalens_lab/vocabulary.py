"""The English the bundled backbone learns: things, states, framings. Prompts are drawn, never listed.

The framings span those of the published prompt ensembles (WinCLIP, APRIL-GAN, AnoCLIP) and the bare "object." of
learned prompts, so that every method's text falls inside what was seen.
"""

from dataclasses import dataclass

from anomalens_lab.synthesis.captions import with_article
from anomalens_lab.synthesis.fields import Random, pick
from anomalens_lab.synthesis.words import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES

AGNOSTIC = (  # names that fit anything; captions have a longer list
    "object",
    "item",
    "part",
    "product",
    "component",
    "thing",
    "surface",
    "workpiece",
    "material",
    "sample",
)

_OBJECTS = """
    bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper
    candle cashew chewinggum fryum macaroni pcb pipe_fryum cookie road bracket tube connector casting gear bearing
    solar_cell wafer chip circuit_board resistor capacitor diode battery lamp bulb switch socket plug wire rope chain
    hook spring washer bolt nail rivet hinge lock key handle knob lever valve pump pipe hose tank barrel bucket can
    jar lid cap cork cup mug plate bowl spoon fork knife pan pot kettle glass vase box carton crate bag sack envelope
    label sticker book page card coin medal ring watch clock dial gauge meter scale ruler lens mirror window door wall
    floor ceiling roof brick stone slab concrete asphalt pavement bridge beam column plank board panel sheet plate foil
    film tape ribbon thread yarn fabric cloth textile canvas denim silk wool felt towel curtain rug mat cushion sofa
    chair table desk shelf drawer bed shoe boot sock glove hat shirt jacket zip button buckle belt wallet tyre wheel
    rim hub axle shaft rotor turbine blade fan propeller wing fuselage hull engine piston cylinder gasket seal filter
    sieve mesh net fence gate rail track sleeper tablet vial syringe ampoule needle mask bandage lens_cap phone screen
    keyboard mouse laptop camera speaker headphone toy ball doll puzzle brush comb razor soap candle_holder egg apple
    banana orange lemon tomato potato carrot onion bean pea corn rice grain seed almond walnut peanut pistachio coffee
    bread bun biscuit cracker cake pizza pasta noodle chocolate candy pretzel waffle cheese sausage fish shrimp leaf
    flower tree bark log branch paper cardboard plastic rubber ceramic porcelain marble granite steel iron aluminium
    copper brass gold silver titanium weld joint seam edge corner tooth bone skin ingot magnet magnetic_tile insulator
    coil motor heatsink fuse relay antenna sensor display pallet tray basket bin container drum tube_light
"""
OBJECTS = tuple(_OBJECTS.split())

# (normal, abnormal); "{}" is the thing. The same words in both columns would teach nothing, so they are opposites.
STATES = (
    ("normal {}", "abnormal {}"),
    ("flawless {}", "damaged {}"),
    ("perfect {}", "imperfect {}"),
    ("unblemished {}", "blemished {}"),
    ("{} without flaw", "{} with flaw"),
    ("{} without defect", "{} with defect"),
    ("{} without damage", "{} with damage"),
    ("{}", "damaged {}"),
    ("{}", "broken {}"),
    ("{}", "{} with defect"),
    ("{}", "defective {}"),
    ("undamaged {}", "damaged {}"),
    ("intact {}", "broken {}"),
    ("good {}", "bad {}"),
    ("faultless {}", "faulty {}"),
    ("clean {}", "contaminated {}"),
    ("immaculate {}", "flawed {}"),
    ("{} in good condition", "{} in bad condition"),
    ("{} with no defects", "{} with a defect"),
    ("{} without anomaly", "{} with anomaly"),
    ("defect-free {}", "defective {}"),
    ("regular {}", "anomalous {}"),
    ("sound {}", "spoiled {}"),
    ("{} that passed inspection", "{} that failed inspection"),
    ("healthy {}", "deformed {}"),
    ("functional {}", "defective {}"),
)

_QUALITIES = (
    "", "", "", "cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry", "bad", "good", "low resolution",
    "black and white",
)  # fmt: skip
_DOMAINS = ("", "", "", "", "industrial", "manufacturing", "textural", "surface")
_MEDIA = ("photo", "photo", "photo", "image", "picture")
_ARTICLES = ("a", "the", "a", "the", "my", "one", "this", "")
_SIZES = ("", "", "", "", "small", "large", "cool", "new")
_ENDINGS = ("", "", "", "", " for visual inspection", " for anomaly detection", " in the scene", ".", ".")
_JUNK = (
    "x",
    "of",
    "image",
    "look",
    "see",
    "surface",
    "view",
    "and",
    "the",
    "detail",
    "texture",
    "with",
    "is",
    "on",
)


@dataclass(frozen=True)
class Frame:
    """What stands around a thing in a prompt; "{}" is the thing with its state."""

    text: str

    def __call__(self, thing: str) -> str:
        """The whole prompt."""
        return self.text.format(thing)


def frame(rng: Random) -> Frame:
    """A framing such as "a blurry industrial photo of the {}", bare "{}", or stray words before it."""
    style = rng.random()
    if style < 0.12:
        return Frame("{}" if rng.random() < 0.5 else "{}.")
    if style < 0.2:  # learned prompts put context vectors there
        return Frame(" ".join(pick(rng, _JUNK) for _ in range(int(rng.integers(2, 13)))) + " {}.")
    if style < 0.26:
        return Frame(f"{pick(rng, ('there is', 'this is'))} {pick(rng, ('a', 'the', 'one'))} {{}} in the scene.")
    words = (pick(rng, _QUALITIES), pick(rng, _DOMAINS), pick(rng, _MEDIA), "of", pick(rng, _ARTICLES))
    body = " ".join(w for w in (*words, pick(rng, _SIZES)) if w)
    head = "an" if body[0] in "aeiou" else "a"
    return Frame(f"{head} {body} {{}}{pick(rng, _ENDINGS)}")


def thing(rng: Random, subjects: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> str:
    """A name for what is shown: a generic word, one of `subjects`, any object, or any word at all.

    What is wrong with an image must not depend on what it is called, so names are mostly wrong.
    """
    style = rng.random()
    if style < 0.35:
        return str(pick(rng, AGNOSTIC))
    if subjects and style < 0.6:
        return str(pick(rng, subjects))
    if words and style > 0.9:
        return str(pick(rng, words))
    return str(pick(rng, OBJECTS))


def state_pair(rng: Random, subjects: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> tuple[str, str]:
    """A normal and an abnormal prompt about the same thing, mostly in the same framing."""
    name = thing(rng, subjects, words)
    if rng.random() < 0.25:  # the wording of the captions: any state against any other, in grammatical English
        normal, abnormal = (with_article(pick(rng, s).format(name)) for s in (NORMAL_STATES, ABNORMAL_STATES))
        return pick(rng, TEMPLATES).format(normal), pick(rng, TEMPLATES).format(abnormal)
    normal, abnormal = pick(rng, STATES)
    first = frame(rng)
    second = first if rng.random() < 0.7 else frame(rng)
    return first(normal.format(name)), second(abnormal.format(name))
