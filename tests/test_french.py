"""Numbers and spaces of French typography, against what the Imprimerie nationale's rules give by hand."""

import pytest

from fruits import french

HARD = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (1280, ",", f"1{HARD}280"),
        (1234567.891, ",.2f", f"1{HARD}234{HARD}567,89"),
        (0.9508, ".1%", f"95,1{HARD}%"),
        (-3.5, "+.1f", "−3,5"),
        (7, "", "7"),
    ],
)
def test_a_number_has_a_comma_and_hard_spaces(value, spec, text):
    assert french.write_number(value, spec) == text


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("Quoi ? Oui ; non : si !", f"Quoi{HARD}? Oui{HARD}; non{HARD}: si{HARD}!"),
        ("dit « oui » ici", f"dit «{HARD}oui{HARD}» ici"),
        ("de 8 à 11 $ le million", f"de 8 à 11{HARD}$ le million"),
        ("13,4 Mo en 5 s", f"13,4{HARD}Mo en 5{HARD}s"),
        ("https://site/a?b=c:d", "https://site/a?b=c:d"),
        ("12 pommes", "12 pommes"),
    ],
)
def test_spaces_that_no_line_breaks_at(text, spaced):
    assert french.add_spaces(text) == spaced


def test_a_text_takes_numbers_words_and_what_was_not_measured():
    said = french.say("{found:,} images de {name} : {share:.0%}", found=4321, name="A.B", share=None)
    assert said == f"4{HARD}321{HARD}images de A.B{HARD}: —"


@pytest.mark.parametrize(("count", "said"), [(8e5, "0,8 million"), (1.94e6, "1,9 million"), (1.96e6, "2,0 millions")])
def test_millions_are_plural_from_two_on_as_they_are_written(count, said):
    assert french.say_millions(count) == said
