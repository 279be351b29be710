"""Serve recipes: list them, teach them in the background, choose the version that judges."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from anomalens.detection.recipe import SUFFIX
from anomalens.errors import InputError
from anomalens.serving.api.common import ServiceOf, errors
from anomalens.serving.api.requests import Sent, body_of, read_request
from anomalens.serving.recipe_answers import JobAnswer, RecipesAnswer, job_answer, recipe_answers
from anomalens.serving.service import Service
from anomalens.serving.teaching_jobs import Wish

router = APIRouter(tags=["recipes"])

_FILE = {"type": "string", "format": "binary"}
Name = Annotated[str, Path(max_length=100)]
Version = Annotated[int, Path(ge=1, le=10**9)]


class AcceptedJob(BaseModel):
    """Hold a job that was accepted."""

    job: JobAnswer


class JobsAnswer(BaseModel):
    """Hold the latest jobs, the newest first."""

    jobs: list[JobAnswer]


class ActivateBody(BaseModel):
    """Name the version that judges from now on."""

    version: Annotated[int, Path(ge=1, le=10**9)]


@router.get("/recipes", response_model=RecipesAnswer, responses=errors())
def recipes(service: ServiceOf) -> Any:
    """List recipes with all of their versions, the newest first."""
    return RecipesAnswer(recipes=recipe_answers(service.recipes.all()))


@router.post(
    "/recipes",
    status_code=202,
    response_model=AcceptedJob,
    responses=errors(404, 409, 413),
    openapi_extra=body_of(
        {
            "name": {"type": "string", "maxLength": 80},
            "images": {"type": "array", "items": _FILE, "description": "Good photos."},
            "inspections": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Inspections whose images are good photos too.",
            },
            "base": {"type": "string", "description": "Learn more: 'active' or the number of a version."},
            "reviewed": {"type": "boolean", "description": "Also learn from images that reviews call good."},
            "roi": {**_FILE, "description": "A mask: defects count where it is not black."},
            "fpr": {"type": "number", "description": "Largest rate of false alarms, between 0 and 1."},
            "mixed": {"type": "boolean", "description": "The photos are not sorted, and some are faulty."},
            "object": {"type": "string", "description": "What the photos show."},
            "activate": {"type": "boolean", "default": True, "description": "Have the new version judge."},
        },
        raw=False,
        required=["name"],
    ),
)
async def teach(request: Request, service: ServiceOf) -> Any:
    """Teach a recipe from good photos, in the background; a name that exists gets a new version."""
    sent = await read_request(request, service.settings, many=False)
    job = await run_in_threadpool(_teach, service, sent)
    return AcceptedJob(job=job_answer(job))


def _teach(service: Service, sent: Sent) -> Any:
    name, base = sent.text("name"), sent.text("base")
    if name is None:
        raise InputError("name: say what the recipe is called")
    version: int | None = None
    if base is not None:
        if base != "active" and not (base.isascii() and base.isdigit() and len(base) < 10):
            raise InputError(f"base is 'active' or the number of a version, not {base!r:.50}")
        version = service.recipes.active(name).version if base == "active" else int(base)
    return service.teaching.submit(
        Wish(
            name=name,
            images=sent.images,
            inspections=[id for value in sent.fields.get("inspections", []) for id in value.split(",") if id],
            base=version,
            reviewed=sent.yes("reviewed", False),
            roi=sent.files.get("roi") or None,
            fpr=sent.number("fpr"),
            mixed=sent.yes("mixed", False),
            object_name=sent.text("object"),
            activate=sent.yes("activate", True),
        )
    )


@router.post("/recipes/{name}/activate", response_model=RecipesAnswer, responses=errors(404))
def activate(name: Name, body: ActivateBody, service: ServiceOf) -> Any:
    """Have a version judge from now on: a newer one, or an earlier one to roll back."""
    service.recipes.activate(name, body.version)
    return RecipesAnswer(recipes=[entry for entry in recipe_answers(service.recipes.all()) if entry.name == name])


@router.get(
    "/recipes/{name}/{version}.anomalens",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": _FILE}}, "description": "The file."},
        **errors(404),
    },
)
def download(name: Name, version: Version, service: ServiceOf) -> FileResponse:
    """Return a version as the file that `anomalens detect --recipe` reads."""
    path = service.recipes.file(name, version)
    return FileResponse(path, media_type="application/octet-stream", filename=f"{name}-{version}{SUFFIX}")


@router.delete("/recipes/{name}/{version}", status_code=204, responses=errors(404, 409))
def remove(name: Name, version: Version, service: ServiceOf) -> None:
    """Delete a version that is not active."""
    service.recipes.remove(name, version)


@router.get("/jobs", response_model=JobsAnswer, responses=errors())
def jobs(service: ServiceOf) -> Any:
    """List the latest jobs, the newest first."""
    return JobsAnswer(jobs=[job_answer(job) for job in service.teaching.all()])


@router.get("/jobs/{id}", response_model=JobAnswer, responses=errors(404))
def job(id: str, service: ServiceOf) -> Any:
    """Say how far a job has come."""
    return job_answer(service.teaching.get(id))
