"""Units of laboratory values, by pint; between amounts (mol) and masses (g) by the molar mass of what is measured."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from bayesdd.data.values import Array
from bayesdd.numerics.refusal import MissingPackage, Refusal

# g/mol, of the molecule or element that laboratories report. Where a name is none of these, it is given with the units.
MOLAR_MASSES = {
    ("bilirubin", "bili", "tbil", "total_bilirubin"): 584.66,
    ("creatinine", "crea", "creat", "scr"): 113.12,
    ("glucose", "gluc", "glu"): 180.16,
    ("cholesterol", "chol", "ldl", "hdl"): 386.65,
    ("triglycerides", "trig", "tg"): 885.4,  # triolein, by convention
    ("urea",): 60.06,
    ("bun", "urea_nitrogen"): 28.01,
    ("uric_acid", "urate"): 168.11,
    ("calcium", "ca"): 40.08,
    ("magnesium", "mg"): 24.31,
    ("phosphate", "phosphorus"): 30.97,  # as phosphorus
    ("iron", "fe"): 55.85,
    ("copper", "cu"): 63.55,
}

ABOUT = 1.4  # by how much patients of two sources may differ besides the unit


def converted(values: Array, units: Sequence[Any], names: Sequence[str], what: str) -> tuple[Array, str]:
    """Values in another unit.

    Args:
        values: In the first unit.
        units: From and to; and the molar mass, g/mol, where one is an amount and the other a mass.
        names: Names of the variable, by which ``MOLAR_MASSES`` may know it.
        what: Names the variable in messages.

    Returns:
        Values, and what was done in words.

    Raises:
        Refusal: A unit is unknown, or they do not convert.
    """
    if isinstance(units, str) or len(units) not in (2, 3) or not all(isinstance(unit, str) for unit in units[:2]):
        raise Refusal(f"{what}: units= takes a pair (from, to), such as ('umol/l', 'mg/dl'), got {units!r}.")
    pint, registry = _registry()
    mass = float(units[2]) if len(units) == 3 else _molar_mass(names)
    settings: tuple[Any, ...] = ("chemistry",) if mass else ()
    more = {"mw": registry.Quantity(mass, "g/mol")} if mass else {}
    try:
        given, wanted = (registry.parse_expression(_spelled(unit)) for unit in units[:2])
        for unit, parsed in zip(units, (given, wanted), strict=False):
            if not hasattr(parsed, "units"):
                raise Refusal(f"{what}: {unit!r} is no unit: write one as pint does, such as 'mg/dl' or '10^9/l'.")
        if not (given._is_multiplicative and wanted._is_multiplicative):
            return registry.Quantity(values, given.units).to(wanted.units).magnitude, f"{units[0]} to {units[1]}"
        factor = float(given.to(wanted.units, *settings, **more).magnitude / wanted.magnitude)
    except pint.UndefinedUnitError as error:
        raise Refusal(f"{what}: {error}: write units as pint does, such as 'mg/dl', 'U/l' or '10^9/l'.") from None
    except pint.DimensionalityError:
        need = ""
        if mass is None:
            need = f": if one is an amount (mol), give the molar mass in g/mol, ({units[0]!r}, {units[1]!r}, 584.66)"
        raise Refusal(
            f"{what}: {units[0]!r} does not convert to {units[1]!r}{need or ': correct the units'}."
        ) from None
    by = f" (molar mass {mass:g} g/mol)" if mass and not given.is_compatible_with(wanted) else ""
    return values * factor, f"{units[0]} to {units[1]}, times {factor:.6g}{by}"


def _molar_mass(names: Sequence[str]) -> float | None:
    plain = {name.lower().replace(" ", "_").replace("-", "_") for name in names}
    return next((mass for known, mass in MOLAR_MASSES.items() if plain & set(known)), None)


def known_factor(name: str, factor: float) -> str:
    """In words, a factor between units of a laboratory value that is about the one found; empty where none is."""
    mass = _molar_mass((name,))
    if mass is None:
        return ""
    ways = {"mg/dl to umol/l": 1e4 / mass, "mg/dl to mmol/l": 10 / mass}
    ways |= {" to ".join(way.split(" to ")[::-1]): 1 / known for way, known in ways.items()}
    return next((f"{known:.3g} is {way}" for way, known in ways.items() if 1 / ABOUT < factor / known < ABOUT), "")


def _spelled(unit: str) -> str:
    """``mm3`` is ``mm^3`` to pint."""
    return re.sub(r"(?<=[A-Za-zµμ])([23])\b", r"^\1", unit)


@functools.cache
def _registry() -> tuple[Any, Any]:
    try:
        import pint
    except ModuleNotFoundError as error:
        raise MissingPackage("units= needs the package pint: pip install pint") from error
    return pint, pint.UnitRegistry()
