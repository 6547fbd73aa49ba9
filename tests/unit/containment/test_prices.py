"""Prices: the list, the caller's own, what is refused, and dollars worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from lakelet.containment.prices import BYTES_PER_GB, Prices
from lakelet.lake.errors import InvalidInput, NotFound

NUMBERS = [field.name for field in dataclasses.fields(Prices) if field.type == "float"]
LISTED = (
    "s3_standard",
    "s3_standard_ia",
    "s3_glacier_instant",
    "adls_hot",
    "adls_cool",
    "adls_cold",
    "gcs_standard",
    "gcs_nearline",
    "gcs_coldline",
)


def test_every_listed_class_has_a_method_of_its_name():
    assert Prices.names() == LISTED
    for name in LISTED:
        prices = getattr(Prices, name)()
        assert prices == Prices.named(name)
        assert prices.name == name


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_class_is_complete_and_plausible(name):
    prices = Prices.named(name)
    assert all(type(getattr(prices, field)) is float for field in NUMBERS)
    assert re.fullmatch(r"\d{4}-\d{2}", prices.as_of)
    assert not re.search(r"//|www|\.(com|org|net)", prices.source + prices.provider)
    assert 0.001 < prices.storage_per_gb_month < 0.03
    assert prices.read_per_1000_requests < prices.write_per_1000_requests
    assert prices.compute_per_hour == 0.05


@pytest.mark.parametrize("store", ["s3", "adls", "gcs"])
def test_colder_classes_store_for_less_and_read_for_more(store):
    tiers = [Prices.named(name) for name in LISTED if name.startswith(store)]
    for warm, cold in itertools.pairwise(tiers):
        assert cold.storage_per_gb_month < warm.storage_per_gb_month
        assert cold.retrieval_per_gb > warm.retrieval_per_gb
        assert cold.read_per_1000_requests > warm.read_per_1000_requests
        assert cold.minimum_storage_days > warm.minimum_storage_days
    assert tiers[0].retrieval_per_gb == tiers[0].minimum_storage_days == 0


def test_dollars():
    cool = Prices.s3_standard_ia()
    assert BYTES_PER_GB == 2**30
    assert cool.storage(100 * 2**30) == pytest.approx(1.25)
    assert cool.reads(5000, 10 * 2**30) == pytest.approx(5 * 0.001 + 10 * 0.01)
    assert cool.writes(2000) == pytest.approx(0.02)
    assert cool.compute(7200) == pytest.approx(0.10)
    assert cool.storage(0, 0) == cool.reads(0, 0) == cool.writes(0) == cool.compute(0) == 0
    assert Prices.s3_standard().reads(1000, 2**40) == pytest.approx(0.0004)


def test_small_objects_are_billed_at_the_least_size():
    cool, hot = Prices.s3_standard_ia(), Prices.s3_standard()
    assert cool.storage(1000, 8192) == cool.storage(2**30)
    assert cool.storage(2**31, 8192) == cool.storage(2**31)
    assert hot.storage(1000, 8192) == hot.storage(1000)


def test_numbers_of_numpy_are_numbers():
    hot = Prices.gcs_standard()
    assert hot.storage(np.int64(2**30), np.int32(3)) == hot.storage(2**30, 3)
    assert type(hot.replace(compute_per_hour=np.float32(0.5)).compute_per_hour) is float


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "0.02", True, None, 10**400])
def test_a_number_that_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(InvalidInput, match=field):
        Prices(**(dataclasses.asdict(Prices.adls_hot()) | {field: value}))


def test_texts_and_dates_that_cannot_be_are_refused():
    for changes in ({"name": ""}, {"source": 3}, {"as_of": "June 2025"}, {"as_of": "2025-13"}, {"as_of": "2025-06-32"}):
        with pytest.raises(InvalidInput, match=next(iter(changes))):
            Prices.adls_cool().replace(**changes)
    assert Prices.adls_cool().replace(as_of="2026-01-31").as_of == "2026-01-31"


@pytest.mark.parametrize("call", ["storage", "writes", "compute"])
@pytest.mark.parametrize("value", [-1, float("nan"), "1", None])
def test_amounts_that_cannot_be_are_refused(call, value):
    with pytest.raises(InvalidInput, match=r"num_bytes|requests|seconds"):
        getattr(Prices.adls_cold(), call)(value)
    with pytest.raises(InvalidInput, match="num_bytes"):
        Prices.adls_cold().reads(1, value)


def test_names_that_are_not_listed():
    with pytest.raises(NotFound, match="s3_standard, s3_standard_ia"):
        Prices.named("s3")
    with pytest.raises(InvalidInput, match="there is no field storage_per_tb"):
        Prices.s3_standard().replace(storage_per_tb=20)


def test_replace_changes_nothing_else():
    hot = Prices.s3_standard()
    mine = hot.replace(name="ours", storage_per_gb_month=0.01)
    assert (mine.name, mine.storage_per_gb_month, mine.region) == ("ours", 0.01, hot.region)
    assert hot == Prices.named("s3_standard")


def test_prices_of_a_file(tmp_path):
    path = tmp_path / "ours.json"
    fields = {"name": "ours", "provider": "the cellar", "region": "here", "as_of": "2025-06", "source": "the invoice"}
    fields |= {"storage_per_gb_month": 1, "read_per_1000_requests": 0, "write_per_1000_requests": 0}
    path.write_text(json.dumps(fields))
    mine = Prices.from_file(path)
    assert (mine.storage(2**31), mine.retrieval_per_gb, mine.compute_per_hour) == (2.0, 0.0, 0.05)
    path.write_text(json.dumps(dataclasses.asdict(Prices.gcs_coldline())))
    assert Prices.from_file(str(path)) == Prices.gcs_coldline()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable JSON file"),
        (b"\xff\xfe\x00", "not a readable JSON file"),
        ("[]", "holds a JSON list"),
        ("{}", "left out as_of, name"),
        ('{"nmae": "x"}', "no field nmae"),
        (json.dumps(dataclasses.asdict(Prices.s3_standard()) | {"retrieval_per_gb": -1}), "retrieval_per_gb is -1"),
        (json.dumps(dataclasses.asdict(Prices.s3_standard()) | {"compute_per_hour": float("nan")}), "compute_per_hour"),
    ],
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path, text, message):
    path = tmp_path / "prices.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInput, match=message) as caught:
        Prices.from_file(path)
    assert "prices.json" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="there is no file"):
        Prices.from_file(tmp_path / "none.json")
    with pytest.raises(InvalidInput, match="not a readable"):
        Prices.from_file(tmp_path)
