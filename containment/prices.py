"""What storing and reading bytes costs in dollars: list prices of nine storage classes, and the caller's own.

A GB is 2**30 bytes here, which is what providers bill by that name. Discounts, free tiers, taxes and what leaves the
region are not counted. The prices are data, in ``price_list.json``, each with the month it is from.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..lake.errors import InvalidInput, NotFound

__all__ = ["BYTES_PER_GB", "Prices"]

BYTES_PER_GB: Final = 2**30
_SECONDS_PER_HOUR: Final = 3600.0
_DATE: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?")


@dataclass(frozen=True)
class Prices:
    """One storage class in one region, in US dollars.

    ``as_of``: the month or day the prices are from, "2025-06" or "2025-06-30"; ``source``: in words, where they stand.
    ``read_per_1000_requests`` is for getting, ``write_per_1000_requests`` for putting objects;
    ``retrieval_per_gb``: what reading a GB costs beside its requests, 0 for hot classes. ``compute_per_hour``: one
    vCPU for an hour. ``minimum_object_bytes``: what a smaller object is billed as. ``minimum_storage_days``: what
    deleting earlier is billed as; :meth:`storage` does not count it.

    Raises :exc:`~lakelet.lake.errors.InvalidInput` for numbers that are negative or not finite.
    """

    name: str
    provider: str
    region: str
    as_of: str
    source: str
    storage_per_gb_month: float
    read_per_1000_requests: float
    write_per_1000_requests: float
    retrieval_per_gb: float = 0.0
    compute_per_hour: float = 0.05
    minimum_object_bytes: float = 0.0
    minimum_storage_days: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "str":
                if not isinstance(value, str) or not value:
                    raise InvalidInput(f"{field.name} is {value!r}, not a word or more: say it in text")
            else:
                object.__setattr__(self, field.name, _number(value, field.name))
        if not _DATE.fullmatch(self.as_of):
            raise InvalidInput(f"as_of is {self.as_of!r}, not a date: give YYYY-MM or YYYY-MM-DD")

    @classmethod
    def s3_standard(cls) -> Prices:
        """Amazon S3 Standard in us-east-1."""
        return cls.named("s3_standard")

    @classmethod
    def s3_standard_ia(cls) -> Prices:
        """Amazon S3 Standard-Infrequent Access in us-east-1."""
        return cls.named("s3_standard_ia")

    @classmethod
    def s3_glacier_instant(cls) -> Prices:
        """Amazon S3 Glacier Instant Retrieval in us-east-1."""
        return cls.named("s3_glacier_instant")

    @classmethod
    def adls_hot(cls) -> Prices:
        """Azure Data Lake Storage, hot tier, locally redundant, in East US; a request is up to 4 MiB."""
        return cls.named("adls_hot")

    @classmethod
    def adls_cool(cls) -> Prices:
        """Azure Data Lake Storage, cool tier, locally redundant, in East US; a request is up to 4 MiB."""
        return cls.named("adls_cool")

    @classmethod
    def adls_cold(cls) -> Prices:
        """Azure Data Lake Storage, cold tier, locally redundant, in East US; a request is up to 4 MiB."""
        return cls.named("adls_cold")

    @classmethod
    def gcs_standard(cls) -> Prices:
        """Google Cloud Storage Standard in us-central1."""
        return cls.named("gcs_standard")

    @classmethod
    def gcs_nearline(cls) -> Prices:
        """Google Cloud Storage Nearline in us-central1."""
        return cls.named("gcs_nearline")

    @classmethod
    def gcs_coldline(cls) -> Prices:
        """Google Cloud Storage Coldline in us-central1."""
        return cls.named("gcs_coldline")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What :meth:`named` knows, in the order of the list."""
        return tuple(_listed())

    @classmethod
    def named(cls, name: str) -> Prices:
        """The prices listed under ``name``. Raises :exc:`~lakelet.lake.errors.NotFound`."""
        found = _listed().get(name)
        if found is None:
            raise NotFound(f"no prices are listed as {name!r}: name one of {', '.join(_listed())}, or give a file")
        return found

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Prices:
        """The prices in a JSON file: one object with the fields of this class; those with a default may be left out.

        Raises :exc:`~lakelet.lake.errors.NotFound` where there is no such file, and
        :exc:`~lakelet.lake.errors.InvalidInput` where it cannot be read or holds anything else.
        """
        where = os.fspath(path)
        try:
            with open(where, encoding="utf-8") as file:
                made = json.load(file)
        except FileNotFoundError:
            raise NotFound(f"there is no file {where}: give the path of a JSON file with prices") from None
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{where} is not a readable JSON file ({error}): mend it") from error
        if not isinstance(made, dict):
            raise InvalidInput(f"{where} holds a JSON {type(made).__name__}: give one object with the fields of Prices")
        return _made(made, where)

    def replace(self, **changes: Any) -> Prices:
        """Return the same prices but for ``changes``, by field. Raises InvalidInput for fields that there are not."""
        return _made(dataclasses.asdict(self) | changes, "replace")

    def storage(self, num_bytes: float, objects: float = 1) -> float:
        """Dollars a month for keeping ``num_bytes`` in ``objects`` objects of about the same size."""
        billed = max(_number(num_bytes, "num_bytes"), _number(objects, "objects") * self.minimum_object_bytes)
        return billed / BYTES_PER_GB * self.storage_per_gb_month

    def reads(self, requests: float, num_bytes: float) -> float:
        """Dollars for reading ``num_bytes`` in ``requests`` requests, within the region."""
        retrieval = _number(num_bytes, "num_bytes") / BYTES_PER_GB * self.retrieval_per_gb
        return _number(requests, "requests") / 1000 * self.read_per_1000_requests + retrieval

    def writes(self, requests: float) -> float:
        """Dollars for ``requests`` requests that write."""
        return _number(requests, "requests") / 1000 * self.write_per_1000_requests

    def compute(self, seconds: float) -> float:
        """Dollars for ``seconds`` of one vCPU."""
        return _number(seconds, "seconds") / _SECONDS_PER_HOUR * self.compute_per_hour


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InvalidInput(f"{name} is {value!r}, not a number: give one of 0 or more")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{name} is {value!r}, not a number: give one of 0 or more") from None
    if not 0 <= number < math.inf:
        raise InvalidInput(f"{name} is {number}, which cannot be: give a finite number of 0 or more")
    return number


def _made(given: Mapping[str, Any], where: str) -> Prices:
    fields = dataclasses.fields(Prices)
    unknown = given.keys() - {field.name for field in fields}
    missing = {f.name for f in fields if f.default is dataclasses.MISSING} - given.keys()
    if unknown or missing:
        found = (
            "there is no field " + ", ".join(sorted(unknown)) if unknown else "left out " + ", ".join(sorted(missing))
        )
        raise InvalidInput(f"{where}: {found}; the fields are {', '.join(field.name for field in fields)}")
    try:
        return Prices(**given)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None


@functools.cache
def _listed() -> dict[str, Prices]:
    text = importlib.resources.files(__package__).joinpath("price_list.json").read_text(encoding="utf-8")
    return {one["name"]: Prices(**one) for one in json.loads(text)["prices"]}
