"""AWS regions of the European Union, the only ones that pictures may lie in or pass through (RGPD)."""

# From AWS's own list of regions, November 2026: those whose data centres stand in a member state.
EUROPEAN_UNION = {
    "eu-west-1": "Dublin",
    "eu-west-3": "Paris",
    "eu-central-1": "Frankfurt",
    "eu-north-1": "Stockholm",
    "eu-south-1": "Milan",
    "eu-south-2": "Spain",
}
ELSEWHERE_IN_EUROPE = {"eu-west-2": "London", "eu-central-2": "Zurich"}  # eu- says Europe, not the Union


def check_region(region):
    """Raise ValueError where a region is not in the European Union. region: a name such as "eu-west-3"."""
    if region in EUROPEAN_UNION:
        return
    city = ELSEWHERE_IN_EUROPE.get(region)
    found = f"{region!r}, {city}," if city else repr(region)
    raise ValueError(
        f"the region is {found} which is not in the European Union: expected one of "
        f"{', '.join(f'{name} ({place})' for name, place in EUROPEAN_UNION.items())}; set it in the params file, and "
        f"move the bucket there where it lies elsewhere"
    )
