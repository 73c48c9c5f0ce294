"""Sizes as people write them: ``512M``, ``10G``, ``1.5T``."""

from typing import Any, Final

import click

UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class SizeType(click.ParamType[int]):
    """A number of bytes, with K, M, G or T for powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes that ``value`` says."""
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B").removesuffix("I")
        unit = text[-1:] if text[-1:] in UNITS else ""
        try:
            size_bytes = int(float(text.removesuffix(unit)) * UNITS[unit])
        except (ValueError, OverflowError):
            size_bytes = 0
        if size_bytes < 1:
            self.fail(f"{value!r} is not a size, such as 512M or 10G", param, ctx)
        return size_bytes


SIZE: Final = SizeType()
