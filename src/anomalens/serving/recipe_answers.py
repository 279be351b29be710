"""Describe recipes and jobs as the service answers them."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Literal

from pydantic import BaseModel

from anomalens.serving.answers import BASE, Label, RecipeName
from anomalens.serving.schema import Job, RecipeVersion


class PhotoAnswer(BaseModel):
    """Describe a good photo; `odd` says that it looks unlike the others."""

    name: str
    score: float
    odd: bool


class VersionAnswer(BaseModel):
    """Describe a version of a recipe."""

    version: int
    created: datetime
    active: bool
    file: str
    bytes: int
    object: str
    method: str
    photos: list[PhotoAnswer]
    left_out: list[str]
    threshold: float
    threshold_source: str
    promised: float | None
    roi: float | None
    normal_scores: list[float]


class RecipeAnswer(BaseModel):
    """Describe a recipe; `active` is the version that judges."""

    name: str
    active: int | None
    versions: list[VersionAnswer]


class RecipesAnswer(BaseModel):
    """Hold recipes by name."""

    recipes: list[RecipeAnswer]


class Verdicts(BaseModel):
    """Hold an answer of one version."""

    label: Label
    score: float


class Compared(BaseModel):
    """Compare the answers of two versions for a reviewed image."""

    id: str
    name: str
    truth: Literal["normal", "anomalous"]
    before: Verdicts
    after: Verdicts


class JobAnswer(BaseModel):
    """Describe work in the background."""

    id: str
    kind: Literal["teach"] = "teach"
    name: str
    state: Literal["waiting", "running", "done", "failed"]
    done: int
    total: int
    error: str | None
    recipe: RecipeName | None
    comparison: list[Compared] | None
    created: datetime


def recipe_answers(rows: Sequence[RecipeVersion]) -> list[RecipeAnswer]:
    """Describe recipes; `rows` are in the order of their names."""
    answers = []
    for name, group in groupby(rows, key=lambda row: row.name):
        versions = list(group)
        active = next((row.version for row in versions if row.active), None)
        answers.append(RecipeAnswer(name=name, active=active, versions=[_version(row) for row in versions]))
    return answers


def _version(row: RecipeVersion) -> VersionAnswer:
    facts = row.facts
    return VersionAnswer(
        version=row.version,
        created=row.created,
        active=row.active,
        file=f"{BASE}/recipes/{row.name}/{row.version}.anomalens",
        photos=[PhotoAnswer(**photo, odd=photo["name"] in facts["odd"]) for photo in facts["photos"]],
        **{
            name: facts[name]
            for name in (
                "bytes", "object", "method", "left_out", "threshold", "threshold_source", "promised", "roi",
                "normal_scores",
            )
        },
    )  # fmt: skip


def job_answer(job: Job) -> JobAnswer:
    """Describe a job."""
    recipe = None if job.version is None else RecipeName(name=job.name, version=job.version)
    own = {name: getattr(job, name) for name in JobAnswer.model_fields if name not in ("kind", "recipe")}
    return JobAnswer.model_validate(own | {"recipe": recipe})
