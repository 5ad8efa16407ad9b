"""A typed JSON file that an evaluation leaves in its run folder, with its format version."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json, write_json

FORMAT_VERSION = 1
AnyRow = TypeVar("AnyRow")


@dataclass(frozen=True)
class Summary:
    """What an evaluation leaves in its run folder; attributes of subclasses are its entries."""

    file: ClassVar[str] = "summary.json"
    remedy: ClassVar[str] = "delete it and run make evaluate again"

    @classmethod
    def read(cls, run: Path) -> Self:
        """Reads the summary of a run folder.

        Raises:
            MissingInputError: if the folder has none.
            UserError: if it is damaged, lacks an entry or is of another format version.
        """
        path = run / cls.file
        content = read_json(path, cls.remedy)
        version = content.pop("format_version", "none")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this version of partrobust reads "
                f"{FORMAT_VERSION}: {cls.remedy}"
            )
        try:
            return cls.parse(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} lacks {error}: {cls.remedy}") from None

    @classmethod
    def find(cls, run: Path) -> Self | None:
        """The summary of a run folder, None where there is none.

        Raises:
            UserError: if it is damaged, lacks an entry or is of another format version.
        """
        return cls.read(run) if (run / cls.file).is_file() else None

    def write(self, run: Path) -> None:
        """Writes the summary of a run folder."""
        write_json(run / self.file, {"format_version": FORMAT_VERSION, **self.content()})

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The summary from its entries as plain values."""
        return parse_row(cls, content)

    def content(self) -> dict[str, Any]:
        """Its entries as plain values."""
        return asdict(self)


def parse_row(kind: type[AnyRow], content: Mapping[str, Any]) -> AnyRow:
    """A dataclass of entries; a KeyError names the one that is missing."""
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: content[name] for name in names})
