"""Laws of factors: where shapes, scales, positions and colours come from, and which values can come out.

A law draws named values and says of any values whether it could have drawn them.
"""

from multiobj_data.factors.algebra import Minus, Mixture, Only, Product
from multiobj_data.factors.laws import Condition, Law, Values, check_law
from multiobj_data.factors.parsing import parse_law
from multiobj_data.factors.single import Choice, Uniform

__all__ = [
    "Choice",
    "Condition",
    "Law",
    "Minus",
    "Mixture",
    "Only",
    "Product",
    "Uniform",
    "Values",
    "check_law",
    "parse_law",
]
