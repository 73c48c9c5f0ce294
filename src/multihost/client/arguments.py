"""What users hand in, as the protocol has it, or refused where they stand.

A message with anything else in it can't be packed, or the server does not
understand it; whoever waits for the answer would wait for ever.
"""

import operator
from collections.abc import Iterable

MOST = 2**63 - 1


def whole(name: str, value: object) -> int:
    """``value`` as a whole number, NumPy's kinds included; raises TypeError for what is none.

    Raises OverflowError for one that takes more than 64 bits.
    """
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        hint = "; write // for a division" if isinstance(value, float) else ""
        raise _wrong(name, value, f"a whole number{hint}") from None
    if abs(found) > MOST:
        raise OverflowError(f"{name} is {found}, and can be {MOST} at most")
    return found


def number(name: str, value: object) -> float:
    """``value`` as a number; raises TypeError for what is none."""
    if not hasattr(value, "__float__"):
        hint = " of seconds" if name.endswith("_s") else ""
        raise _wrong(name, value, f"a number{hint}")
    return float(value)


def text(name: str, value: object) -> str:
    """``value`` if it is a string; raises TypeError otherwise."""
    if not isinstance(value, str):
        raise _wrong(name, value, "a string")
    return value


def texts(name: str, value: object) -> tuple[str, ...]:
    """``value`` as a tuple of strings; raises TypeError, for a single string as well."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        parts = tuple(value)
        if all(isinstance(part, str) for part in parts):
            return parts
        value = parts
    raise _wrong(name, value, "several strings, such as ['gpu', 'big']")


def _wrong(name: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{name} is {value!r}; it has to be {wanted}")
