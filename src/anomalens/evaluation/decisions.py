"""Count decisions against what images are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Decisions:
    """Count images by what they are and what they were called; means over several draws may be fractions."""

    # Anomalous images called anomalous, and called normal.
    found: float = 0
    missed: float = 0
    # Normal images called anomalous, and called normal.
    false_alarms: float = 0
    passed: float = 0
    # Images of either kind that could not be judged.
    unusable: float = 0

    @classmethod
    def of(cls, calls: Iterable[tuple[bool, str]]) -> "Decisions":
        """Count pairs: whether an image is anomalous, and its `Prediction.label`."""
        counts = dict.fromkeys(asdict(cls()), 0)
        for anomalous, called in calls:
            if called == "unusable":
                counts["unusable"] += 1
            elif anomalous:
                counts["found" if called == "anomalous" else "missed"] += 1
            else:
                counts["false_alarms" if called == "anomalous" else "passed"] += 1
        return cls(**counts)

    @classmethod
    def mean(cls, parts: Sequence["Decisions"]) -> "Decisions":
        """Return the mean of several counts, whole numbers where they are whole."""
        total = cls.sum(parts)
        means = {name: value / max(len(parts), 1) for name, value in asdict(total).items()}
        return cls(**{name: int(value) if value == int(value) else value for name, value in means.items()})

    @classmethod
    def sum(cls, parts: Sequence["Decisions"]) -> "Decisions":
        """Return the sum of several counts."""
        return cls(*(sum(values) for values in zip(*(asdict(part).values() for part in parts), strict=True)))

    def to_dict(self) -> dict[str, float]:
        """Return the counts by name."""
        return asdict(self)


def decisions_in_words(made: Mapping[str, float]) -> dict[str, str]:
    """Return counts, as `Decisions.to_dict` gives them, for people: {"found": "13 of 15", ...}."""
    return {
        "found": f"{_short(made['found'])} of {_short(made['found'] + made['missed'])}",
        "false alarms": f"{_short(made['false_alarms'])} of {_short(made['false_alarms'] + made['passed'])}",
        "unusable": _short(made["unusable"]),
    }


def _short(count: float) -> str:
    return f"{count:.0f}" if count == int(count) else f"{count:.1f}"
