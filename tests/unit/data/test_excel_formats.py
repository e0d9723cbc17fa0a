"""What number formats show beside a number."""

from __future__ import annotations

import pytest
from openpyxl.styles.numbers import BUILTIN_FORMATS

from yeast_get.data.excel_formats import shown, units_of_formats


@pytest.mark.parametrize(
    ("code", "value", "text"),
    [
        ("0%", 0.02, "2%"), ("0.00%", 0.0002, "0.02%"), ("0%", 0.1234, "12.34%"),
        ('0"μM"', 5, "5μM"), ('0.0" mM"', 0.5, "0.5 mM"), ('General" mM"', 5, "5 mM"),
        (r"0\ \m\M", 5, "5 mM"), ('#,##0.0" h"', 1000, "1000 h"), ('"<"0', 5, "<5"),
        ('0.00%" (w/v)"', 0.02, "2% (w/v)"), ('[Red]0.0"°C";[Blue]-0.0"°C"', -5.5, "-5.5°C"),
        ('0" mM";-0" mM";"none"', 0, "none"), ('0" mM";-0" mM";"none"', 5, "5 mM"),
        ('0;0" under"', -3, "-3 under"), ('0;0" under"', 3, None),
        ('0.0"%"', 2, "2%"), (r"0.0\%", 2, "2%"), ('0.00,"mM"', 50, "0.05mM"),
        ("#,##0,,", 5e6, None),
        ("[<1]0.0%;0.0", 5, "5 in the format [<1]0.0%;0.0"), ("[<1]0.00;0.0", 5, None),
        ('[>=1]0.0" M";0.0" mM"', 0.5, '0.5 in the format [>=1]0.0" M";0.0" mM"'),
        ("G/通用格式", 30, None), ("Standard", 30, None), ("[$-411]ge.m.d", 5, None),
        ("000", 1, None), ("0", 5, None), ("General", 5, None),
        ('0;;"zero; none"', 0, "zero; none"), ("0;;", 0, None), ('"a;b"0', 1, "a;b1"),
        ("", 5, None), ("@", 5, None), ("0.00E+00", 5e-6, None), ("[$-409]0.0", 5, None),
        ("[$€-2] #,##0.00", 5, None), ("# ?/?", 0.5, None), (";;;", 5, None),
    ],
)  # fmt: skip
def test_a_number_is_taken_as_it_is_shown(code, value, text):
    assert shown(code, value) == text


def test_a_decimal_comma_is_written_where_the_file_writes_it():
    assert shown('0.0" mM"', 0.5, ",") == "0,5 mM"
    assert shown("0.00%", 0.0002, ",") == "0,02%"


def test_of_the_formats_of_excel_only_percent_says_more_than_a_number():
    dates = {14, 15, 16, 17, 18, 19, 20, 21, 22, 45, 46, 47}  # their cells are dates
    codes = {number: code for number, code in BUILTIN_FORMATS.items() if number not in dates}
    found = units_of_formats(codes.values())
    assert set(found.values()) == {"0%", "0.00%"}
