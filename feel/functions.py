"""All built-in functions of FEEL. Each family's module declares its own; importing it is what registers them.

Source: OMG Decision Model and Notation 1.5, chapter 10.3.4.
"""

from vertigym.feel import (
    context_functions,
    conversion_functions,
    list_functions,
    number_functions,
    range_functions,
    text_functions,
)
from vertigym.feel.signatures import BUILT_INS

__all__ = [
    "BUILT_INS",
    "context_functions",
    "conversion_functions",
    "list_functions",
    "number_functions",
    "range_functions",
    "text_functions",
]
