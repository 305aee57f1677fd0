"""The regions that may hold the pictures, against AWS's own list, and the refusal of all others."""

import boto3
import pytest

from fruits import regions

OUTSIDE_EUROPE = ["us-east-1", "ap-northeast-1", "af-south-1", "il-central-1", "cn-north-1", "us-gov-west-1"]
MEMBERS = {"Ireland", "France", "Germany", "Sweden", "Italy", "Spain"}  # of the Union's 27, those with a region


def list_regions_of_europe():
    """List what AWS calls its regions in Europe: {code: name}, such as {"eu-west-3": "Europe (Paris)"}."""
    session = boto3.Session()._session
    partition = next(p for p in session.get_data("endpoints")["partitions"] if p["partition"] == "aws")
    return {code: found["description"] for code, found in partition["regions"].items() if code.startswith("eu-")}


@pytest.mark.parametrize("region", regions.EUROPEAN_UNION)
def test_a_region_in_the_european_union_passes(region):
    assert regions.check_region(region) is None


def test_every_region_of_aws_in_europe_is_either_in_the_union_or_known_to_be_outside():
    places = regions.EUROPEAN_UNION | regions.OUTSIDE
    names = list_regions_of_europe()
    assert set(names) == set(places)
    for code, name in names.items():
        city, country = places[code].split(", ")
        assert city in name or country in name


def test_each_city_lies_in_a_member_of_the_union():
    assert {place.split(", ")[1] for place in regions.EUROPEAN_UNION.values()} == MEMBERS


@pytest.mark.parametrize(("region", "place"), [("eu-west-2", "London"), ("eu-central-2", "Zurich")])
def test_london_and_zurich_are_refused_by_name(region, place):
    with pytest.raises(ValueError, match=f"{region}.*{place}.*not in the European Union.*eu-west-3"):
        regions.check_region(region)


@pytest.mark.parametrize("region", [*OUTSIDE_EUROPE, "", "EU-WEST-3", "eu-west-3 ", "eu-west-9", "Paris", None])
def test_anything_else_is_refused_with_what_was_found_what_was_expected_and_what_to_do(region):
    with pytest.raises(ValueError, match="not in the European Union") as refusal:
        regions.check_region(region)
    message = str(refusal.value)
    assert repr(region) in message
    assert all(code in message for code in regions.EUROPEAN_UNION)
    assert "choose" in message
