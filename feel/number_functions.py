"""Numeric and boolean functions. Source: OMG Decision Model and Notation 1.5, tables 67, 74 and 75."""

import decimal
from decimal import Decimal

from vertigym.feel.operators import equal, negate
from vertigym.feel.signatures import builtin
from vertigym.feel.temporal import Date, DateTime, DaysTime, Time, YearsMonths
from vertigym.feel.values import DECIMAL128, NoValue, Value

LOWEST_SCALE, HIGHEST_SCALE = -6111, 6176  # what IEEE 754 decimal128 has


def rounded(n: Decimal, scale: Decimal, rounding: str) -> Decimal:
    """A number with so many digits after the point; a fraction of `scale` is cut off."""
    if not LOWEST_SCALE <= scale <= HIGHEST_SCALE:
        raise NoValue(f"a scale of {scale}; {LOWEST_SCALE} to {HIGHEST_SCALE} are allowed")
    places = int(scale)
    exponent = n.as_tuple().exponent
    if isinstance(exponent, int) and -exponent <= places:
        return n
    wide = decimal.Context(prec=7000, Emin=-7000, Emax=7000)
    return DECIMAL128.create_decimal(n.quantize(Decimal(1).scaleb(-places, wide), rounding, wide))


@builtin("decimal(n: number, scale: number)")
def _decimal(n: Decimal, scale: Decimal) -> Value:
    return rounded(n, scale, decimal.ROUND_HALF_EVEN)


def _rounding(name: str, mode: str, *, scale_optional: bool = False) -> None:
    @builtin(f"{name}(n: number, scale{'?' * scale_optional}: number)")
    def run(n: Decimal, scale: Decimal = Decimal(0)) -> Value:
        return rounded(n, scale, mode)


_rounding("floor", decimal.ROUND_FLOOR, scale_optional=True)
_rounding("ceiling", decimal.ROUND_CEILING, scale_optional=True)
_rounding("round up", decimal.ROUND_UP)
_rounding("round down", decimal.ROUND_DOWN)
_rounding("round half up", decimal.ROUND_HALF_UP)
_rounding("round half down", decimal.ROUND_HALF_DOWN)


@builtin(
    "abs(n: number)",
    "abs(n: days and time duration)",
    "abs(n: years and months duration)",
)
def _abs(n: Decimal | DaysTime | YearsMonths) -> Value:
    match n:
        case Decimal():
            return abs(n)
        case DaysTime(amount) | YearsMonths(amount):
            return negate(n) if amount < 0 else n


@builtin("modulo(dividend: number, divisor: number)")
def _modulo(dividend: Decimal, divisor: Decimal) -> Value:
    """`dividend - divisor * floor(dividend / divisor)`: its sign is the divisor's."""
    rest = DECIMAL128.remainder(dividend, divisor)
    return DECIMAL128.add(rest, divisor) if rest and (rest < 0) != (divisor < 0) else rest


@builtin("sqrt(number: number)")
def _sqrt(number: Decimal) -> Value:
    return DECIMAL128.sqrt(number)


@builtin("log(number: number)")
def _log(number: Decimal) -> Value:
    if number <= 0:
        raise NoValue(f"log({number}): only of numbers above 0")
    return DECIMAL128.ln(number)


@builtin("exp(number: number)")
def _exp(number: Decimal) -> Value:
    return DECIMAL128.exp(number)


@builtin("odd(number: number)")
def _odd(number: Decimal) -> Value:
    return _parity(number) == 1


@builtin("even(number: number)")
def _even(number: Decimal) -> Value:
    return _parity(number) == 0


@builtin("not(negand: boolean)")
def _not(negand: bool) -> Value:
    return not negand


@builtin("is(value1: Any, value2: Any)")
def _is(first: Value, second: Value) -> Value:
    """Equal, and of one kind; for times and dates with times, digit for digit."""
    if isinstance(first, Time | DateTime | Date):
        return first == second
    return equal(first, second) is True


def _parity(number: Decimal) -> int | None:
    rest = DECIMAL128.remainder(number, Decimal(2))
    return int(abs(rest)) if rest == int(rest) else None
