"""Cells of a csv that no spreadsheet takes for a formula (CWE-1236)."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def escape_formula(text: str) -> str:
    """A cell of a csv that no spreadsheet takes for a formula (CWE-1236).

    What begins as an escaped cell does is escaped, too, so that reading gives back every text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(text: str) -> str:
    """A cell without the apostrophe that `escape_formula` put before it."""
    return text[1:] if text[:1] == "'" and escape_formula(text[1:]) == text else text
