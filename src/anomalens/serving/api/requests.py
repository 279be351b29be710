"""Read what requests carry, within limits: forms with images, or an image as the body."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from anomalens.errors import InputError
from anomalens.serving.settings import ServeSettings
from anomalens.serving.uploads import UploadedImage, check_count, check_size, clean_name
from anomalens.typed_values import checked_value

_MOST_FIELDS = 2000
_FIELD_BYTES = 2**20
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class Sent:
    """Hold what a request carries: images, and fields by name, those of its address included."""

    images: list[UploadedImage] = field(default_factory=list)
    # Files in other fields than `images`.
    files: dict[str, bytes] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """Return a field; None where it is missing or empty."""
        values = self.fields.get(name) or [""]
        return values[-1].strip() or None

    def yes(self, name: str, default: bool) -> bool:
        """Return a field that says yes or no. Raises InputError where it says neither."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in _TRUE + _FALSE:
            raise InputError(f"{name} is 'true' or 'false', not {value!r:.50}")
        return value.lower() in _TRUE

    def number(self, name: str) -> float | None:
        """Return a field that holds a number. Raises InputError where it holds something else."""
        value = self.text(name)
        try:
            return None if value is None else checked_value(name, float(value), float)
        except ValueError:
            raise InputError(f"{name} is a number, not {value!r:.50}") from None


async def read_request(request: Request, settings: ServeSettings, *, many: bool = True) -> Sent:
    """Return what a request carries.

    Args:
        request: with a form, or with the bytes of one image as its body and the name in its address.
        settings: the limits.
        many: refuse more images than a request may have; False where the caller has a limit of its own.

    Raises InputError where it cannot be read, TooLargeError where it is above a limit.
    """
    fields: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        fields.setdefault(name, []).append(value)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Where an image may be the body, `curl --data-binary` says that it is a form without files.
    if kind == "multipart/form-data" or (kind == "application/x-www-form-urlencoded" and not many):
        return await _read_form(request, settings, fields, settings.max_images if many else None)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        check_size("image", len(body), settings)
    images = [UploadedImage(clean_name((fields.get("name") or [""])[-1]), bytes(body))] if body else []
    return Sent(images, {}, fields)


async def _read_form(request: Request, settings: ServeSettings, fields: dict[str, list[str]], most: int | None) -> Sent:
    try:
        form = await request.form(
            max_files=(most or _MOST_FIELDS) + 10, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES
        )
    except HTTPException as error:
        if error.status_code == 400:
            raise InputError(_in_words(str(error.detail), most)) from None
        raise
    try:
        return await run_in_threadpool(_sorted, form, settings, fields, most)
    finally:
        await form.close()


def _sorted(form: FormData, settings: ServeSettings, fields: dict[str, list[str]], most: int | None) -> Sent:
    files: dict[str, bytes] = {}
    uploads: list[UploadFile] = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
        elif name in ("images", "images[]", "image", "file", "files"):
            uploads.append(value)
        else:
            check_size(name, value.size or 0, settings)
            files[name] = value.file.read()
    # A form whose field for images was left empty sends one without name and content.
    uploads = [upload for upload in uploads if upload.filename or upload.size]
    if most is not None and len(uploads) > most:
        check_count(len(uploads), settings)
    for upload in uploads:
        check_size(_name(upload), upload.size or 0, settings)
    images = [UploadedImage(_name(upload), upload.file.read()) for upload in uploads]
    return Sent(images, files, fields)


def _name(upload: UploadFile) -> str:
    """Return the name of an upload for people; browsers write a quotation mark in a form as %22."""
    return clean_name((upload.filename or "").replace("%22", '"'))


def _in_words(reason: str, most: int | None) -> str:
    """Say why a form cannot be read."""
    if "Too many files" in reason and most is not None:
        return f"more than {most} images, the limit of a request; send them in parts"
    return f"the form cannot be read: {reason.rstrip('.')}"


def body_of(fields: dict[str, dict[str, Any]], *, raw: bool, required: Sequence[str] = ()) -> dict[str, Any]:
    """Describe a body for the OpenAPI document: a form of `fields`, and where `raw`, also the bytes of an image."""
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": {"type": "object", "properties": fields, "required": list(required)}}
    }
    if raw:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}
