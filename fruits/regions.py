"""The regions of AWS that lie in the European Union; no other may hold the pictures (RGPD)."""

EUROPEAN_UNION = {
    "eu-west-1": "Dublin, Ireland",
    "eu-west-3": "Paris, France",
    "eu-central-1": "Frankfurt, Germany",
    "eu-north-1": "Stockholm, Sweden",
    "eu-south-1": "Milan, Italy",
    "eu-south-2": "Aragon, Spain",
}
# Their names begin with "eu-" too, where it means Europe, not the Union.
OUTSIDE = {"eu-west-2": "London, United Kingdom", "eu-central-2": "Zurich, Switzerland"}


def check_region(region):
    """Check that a region of AWS lies in the European Union.

    region: its code, such as "eu-west-3". Raises ValueError with the regions that do.
    """
    if region in EUROPEAN_UNION:
        return
    place = f" ({OUTSIDE[region]})" if region in OUTSIDE else ""
    expected = ", ".join(f"{code} ({city})" for code, city in EUROPEAN_UNION.items())
    raise ValueError(
        f"the region {region!r}{place} is not in the European Union, where the pictures must stay: expected one of "
        f"{expected}; choose one of these, and a bucket that lies there"
    )
