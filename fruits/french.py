"""French as it is printed: numbers with a decimal comma, and spaces that no line is broken at."""

import re
import string
from numbers import Number

HARD_SPACE = "\N{NO-BREAK SPACE}"
# Before high punctuation, inside quotation marks, before a unit. In a URL or a program there is no space before them.
HARD = re.compile(r"(?<=[^\s|]) (?=[:;?!»%€$])|(?<=«) |(?<=\d) (?=(?:[kMG]?i?o|ms|s|h|min|images?|fois)\b)")


class _Formatter(string.Formatter):
    """str.format with numbers as French has them."""

    def format_field(self, value, format_spec):
        if value is None:
            return "—"  # not measured
        return write_number(value, format_spec) if isinstance(value, Number) else format(value, format_spec)


def write_number(value, format_spec=""):
    """Write a number: "1 280,5" for 1280.5 with the format ",.1f", "95,1 %" for 0.951 with ".1%"."""
    text = format(value, format_spec).replace("%", " %")
    return text.translate(str.maketrans({",": HARD_SPACE, ".": ",", " ": HARD_SPACE, "-": "−"}))


def add_spaces(text):
    """Make the spaces hard that French typography does not break at."""
    return HARD.sub(HARD_SPACE, text)


def say(text, *values, **named):
    """Fill the fields of a text as str.format does, in French."""
    return add_spaces(_Formatter().vformat(text, values, named))


def say_millions(count):
    """Say a count in millions: "1,9 million", "2,0 millions", since French has no plural below two."""
    millions = round(count / 1e6, 1)
    return say("{:.1f} million{}", millions, "s" if millions >= 2 else "")
