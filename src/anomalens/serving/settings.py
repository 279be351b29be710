"""Hold what a service is told when it starts; everything is checked here, once."""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from anomalens.errors import ConfigError
from anomalens.images.image_files import MAX_PIXELS
from anomalens.options import LoadOptions
from anomalens.untrusted import read_bytes

_LEAST_TOKEN = 16  # characters
_MOST_TOKEN = 4096  # bytes of a token's file
DEFAULT_STORE = "sqlite:///history.db"


@dataclass(frozen=True)
class ServeSettings:
    """Hold the settings of a service. Raises ConfigError where they do not go together."""

    # Files of `anomalens fit`; each becomes a recipe named as the file, unless the store knows it already.
    recipes: tuple[Path, ...] = ()
    # SQLAlchemy's address of the database.
    store: str = DEFAULT_STORE
    # Folder of images and maps; None: beside an SQLite file, under its name with `_media`.
    media: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    # What every request must show; None: none, which is accepted on the loopback interface alone.
    token: str | None = field(default=None, repr=False)
    # Images accepted and not answered yet.
    max_queue: int = 256
    # Largest number of bytes of an image.
    max_bytes: int = 64 * 2**20
    # Most images of a request.
    max_images: int = 100
    # Days after which an inspection and its pictures are deleted; None keeps them.
    retention_days: float | None = None
    # How long a request waits for its answers, in seconds; then it says that they are on their way.
    patience: float = 60.0
    # Detectors kept loaded at a time.
    max_detectors: int = 8
    # How detectors without a recipe see and decide.
    options: LoadOptions = LoadOptions()

    def __post_init__(self) -> None:
        if self.max_queue < 1 or self.max_images < 1 or self.max_bytes < 1:
            raise ConfigError("the limits of queue, images and bytes must each be at least 1")
        if self.max_images > self.max_queue:
            object.__setattr__(self, "max_images", self.max_queue)
        if self.retention_days is not None and self.retention_days <= 0:
            raise ConfigError(
                f"a retention of {self.retention_days:g} days would keep nothing; leave it out to keep all"
            )
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} can be reached from other machines, so a token is needed: write one into a file, "
                "for instance with `openssl rand -hex 32`, and name it by --token-file"
            )

    @property
    def max_pixels(self) -> int:
        """Return the largest number of pixels of an image."""
        return self.options.max_pixels or MAX_PIXELS

    @property
    def max_request(self) -> int:
        """Return the largest number of bytes of a request: a few of the largest images, or many ordinary ones."""
        return max(4 * self.max_bytes, 2**20) + 2**20

    @property
    def media_folder(self) -> Path:
        """Return the folder of images and maps. Raises ConfigError where neither it nor an SQLite file is named."""
        if self.media is not None:
            return self.media
        file = sqlite_file(self.store)
        if file is None:
            raise ConfigError(
                f"name the folder of the pictures: --media DIR (the store is {without_password(self.store)})"
            )
        return file.with_name(f"{file.stem}_media")


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach an interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def sqlite_file(store: str) -> Path | None:
    """Return the file of an SQLite database by its address; None for another kind."""
    prefix, separator, path = store.partition(":///")
    if not separator or prefix.partition("+")[0] != "sqlite" or not path or path == ":memory:":
        return None
    return Path(os.path.expanduser(path.partition("?")[0]))


def without_password(store: str) -> str:
    """Return a database's address for people, its password replaced. Raises ConfigError where it is no address."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(store).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise ConfigError(
            "--store is no address of a database: use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        ) from error


def read_token(path: Path) -> str:
    """Return the token in a file, without the white space around it.

    Raises ConfigError where it cannot be read, is short, or can be read by other users of this machine.
    """
    content = read_bytes(path, named="token file", most_bytes=_MOST_TOKEN)
    if os.name == "posix" and os.stat(path).st_mode & 0o007:
        raise ConfigError(f"token file {path} can be read by everybody on this machine; run: chmod o= {path}")
    token = content.decode("ascii", "replace").strip()
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"token file {path}: a token is one line of at least {_LEAST_TOKEN} ASCII characters without spaces; "
            "make one with `openssl rand -hex 32`"
        )
    return token
