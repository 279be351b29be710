"""Describe the tables of the history.

    uploads ◀─ inspections ─▶ regions, reviews          recipes (a row a version) ◀─ jobs
                    └───────▶ deliveries ─▶ webhooks

Times are UTC. Pictures lie in the media folder, rows hold their names. `migrations/` makes and changes the tables.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Utc(TypeDecorator[datetime]):
    """Store times in UTC, and read them back with their zone from databases that keep none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return a time as it is stored."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return a stored time with its zone."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """Gather the tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class Upload(Table):
    """Remember a request that named a key of its own, so that sending it again changes nothing."""

    __tablename__ = "uploads"
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    # Of the images and of what was asked for.
    digest: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(default=now)


class Inspection(Table):
    """Hold one image and its answer."""

    __tablename__ = "inspections"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)
    # "waiting", "done" or "failed".
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    # Which media folder holds its pictures.
    station: Mapped[str] = mapped_column(String(32))
    # Key of the request it came with, and its place there.
    upload_key: Mapped[str | None] = mapped_column(ForeignKey("uploads.key"))
    place: Mapped[int] = mapped_column(default=0)
    # As the sender called the image, in text form.
    name: Mapped[str] = mapped_column(String(500))
    # Name of the image's bytes in the media folder.
    original: Mapped[str] = mapped_column(String(80))
    bytes: Mapped[int]
    # What judges: a recipe and its version, or a method and an object's name.
    recipe: Mapped[str | None] = mapped_column(String(100))
    version: Mapped[int | None]
    method: Mapped[str] = mapped_column(String(100))
    object: Mapped[str] = mapped_column(String(1000))
    # None until the image is judged.
    answered: Mapped[datetime | None]
    label: Mapped[str | None] = mapped_column(String(10))
    score: Mapped[float | None]
    p_value: Mapped[float | None]
    # Everything else that `Prediction` holds, but the map.
    facts: Mapped[dict[str, Any] | None]
    # Name of the map in the media folder.
    map: Mapped[str | None] = mapped_column(String(80))
    error: Mapped[str | None] = mapped_column(Text)
    # The verdict of the latest review.
    verdict: Mapped[str | None] = mapped_column(String(20))

    regions: Mapped[list["Region"]] = relationship(
        order_by="Region.place", cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )
    reviews: Mapped[list["Review"]] = relationship(
        order_by="Review.id", cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )

    __table_args__ = (
        Index("ix_inspections_created", "created", "id"),
        Index("ix_inspections_score", "score", "id"),
        Index("ix_inspections_recipe", "recipe", "created"),
        Index("ix_inspections_state", "state", "station"),
        Index("ix_inspections_original", "original"),
        Index("ix_inspections_upload_key", "upload_key"),
    )


class Region(Table):
    """Hold a region of an inspection, in pixels of the image."""

    __tablename__ = "regions"
    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id", ondelete="CASCADE"), primary_key=True)
    # 0 has the highest peak.
    place: Mapped[int] = mapped_column(primary_key=True)
    left: Mapped[int]
    top: Mapped[int]
    right: Mapped[int]
    bottom: Mapped[int]
    area: Mapped[int]
    peak: Mapped[float]
    peak_x: Mapped[int]
    peak_y: Mapped[int]
    mm_per_px: Mapped[float | None]


class Review(Table):
    """Hold what a person said of an answer; the latest of an inspection counts."""

    __tablename__ = "reviews"
    id: Mapped[int] = mapped_column(primary_key=True)
    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id", ondelete="CASCADE"), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    # "right", "false alarm", "missed" or "unusable".
    verdict: Mapped[str] = mapped_column(String(20))
    comment: Mapped[str] = mapped_column(Text, default="")
    # Name of a corrected mask in the media folder.
    mask: Mapped[str | None] = mapped_column(String(80))


class RecipeVersion(Table):
    """Hold a version of a taught part; one of each name is active."""

    __tablename__ = "recipes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[int]
    created: Mapped[datetime] = mapped_column(default=now)
    active: Mapped[bool] = mapped_column(default=False)
    # Name of the recipe's file in the media folder, and the folder's station.
    file: Mapped[str] = mapped_column(String(80))
    station: Mapped[str] = mapped_column(String(32))
    # What is told about it.
    facts: Mapped[dict[str, Any]]

    __table_args__ = (UniqueConstraint("name", "version"),)


class Job(Table):
    """Hold work that goes on in the background: teaching a recipe."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)
    # Name of the recipe.
    name: Mapped[str] = mapped_column(String(100))
    station: Mapped[str] = mapped_column(String(32))
    # "waiting", "running", "done" or "failed".
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    # Photographs and options: all that it takes to begin again.
    settings: Mapped[dict[str, Any]]
    version: Mapped[int | None]
    comparison: Mapped[list[Any] | None]
    error: Mapped[str | None] = mapped_column(Text)


class Webhook(Table):
    """Hold an address that is told of anomalous images."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)
    url: Mapped[str] = mapped_column(String(2000))
    # Key of the signature.
    secret: Mapped[str] = mapped_column(String(200))
    # Tell of images of this recipe alone; None: of all.
    recipe: Mapped[str | None] = mapped_column(String(100))


class Delivery(Table):
    """Hold a message to a webhook until it has arrived, and for good where it never does."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), index=True)
    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id", ondelete="CASCADE"), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    # "waiting", "delivered" or "dead".
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    # When it is tried next.
    due: Mapped[datetime] = mapped_column(default=now)
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("ix_deliveries_state", "state", "due"),)
