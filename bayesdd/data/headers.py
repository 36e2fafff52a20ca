"""Headers: what a file says of itself, looked at before any of its values is read.

A header of a few bytes can claim more numbers than any memory holds, small archives unpack to large ones, and a Zarr
store can name a codec that runs what it finds in a chunk.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netCDF4

from bayesdd.numerics.refusal import Refusal

FREE = 2**26  # bytes that a file of any size may claim: too few to do harm
TIMES = 100  # its size on disk, which compressed tables of numbers do not exceed
TIMES_ON_DISK = 1000  # the most that deflate reaches: rows that stay on disk take no memory, only time
MOST_TEXT = 2**20  # bytes of one file of metadata

_V2_NUMBER = re.compile(r"[<>|]?[biuf]\d{1,2}")  # NumPy's names of types
_V2_TEXT = re.compile(r"[<>|]?[SU]\d{1,6}")
_V3_NUMBER = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_V3_TEXT = {"string", "fixed_length_utf32", "variable_length_utf8", "null_terminated_bytes"}


def check_netcdf(path: Path, times: int = TIMES) -> None:
    """Refuses a file that claims far more than it holds.

    Args:
        path: The file.
        times: How many times its size on disk its variables may claim.

    Raises:
        Refusal: A variable, or one chunk of it, claims more.
        OSError: No netCDF file.
    """
    with netCDF4.Dataset(path) as file:
        _check_claims(_claims(file), path.stat().st_size, times)


def _claims(file: Any) -> Iterator[tuple[str, int]]:
    """Variables of all groups, and the bytes that each claims."""
    groups = [file]
    while groups:
        group = groups.pop()
        groups += group.groups.values()
        for name, variable in group.variables.items():
            chunks = variable.chunking()
            chunk = math.prod(map(int, chunks)) if isinstance(chunks, list) else 0
            yield name, max(math.prod(map(int, variable.shape)), chunk) * getattr(variable.dtype, "itemsize", 16)


def check_npz(path: Path) -> None:
    """Refuses an archive that unpacks to far more than it holds.

    Raises:
        Refusal: Its arrays claim more.
        zipfile.BadZipFile: No archive.
    """
    with zipfile.ZipFile(path) as archive:
        _check_claims(((info.filename, info.file_size) for info in archive.infolist()), path.stat().st_size, TIMES)


def check_zarr(path: Path) -> None:
    """Refuses a store that claims far more than it holds, or with arrays that are neither numbers nor text.

    Raises:
        Refusal: There is such an array, or metadata that are no JSON mapping.
    """
    claims = {}
    for file in [*path.glob("*/.zarray"), *path.glob("*/zarr.json"), *path.glob("zarr.json"), *path.glob(".z*")]:
        if file.stat().st_size > MOST_TEXT:
            raise Refusal(f"its metadata {file.relative_to(path)} have {file.stat().st_size:,} bytes")
        found = json.loads(file.read_bytes())
        if not isinstance(found, dict):
            raise Refusal(f"its metadata {file.relative_to(path)} are no mapping")
        if file.parent != path and found.get("node_type", "array") == "array":
            claims[file.parent.name] = _array(file.parent.name, found)
    on_disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    _check_claims(iter(claims.items()), on_disk, TIMES_ON_DISK)


def _array(name: str, found: dict[str, Any]) -> int:
    """Bytes that an array of a store claims, from its metadata of version 2 or 3."""
    if "dtype" in found:
        kind, chunks = found["dtype"], found["chunks"]
        codecs = [codec["id"] for codec in found.get("filters") or []]
        text = isinstance(kind, str) and (bool(_V2_TEXT.fullmatch(kind)) or (kind == "|O" and codecs == ["vlen-utf8"]))
        number = isinstance(kind, str) and _V2_NUMBER.fullmatch(kind)
    else:
        kind, chunks = found["data_type"], found["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = [codec if isinstance(codec, str) else codec["name"] for codec in found.get("codecs") or []]
        kind = kind["name"] if isinstance(kind, dict) else kind
        text, number = kind in _V3_TEXT, _V3_NUMBER.fullmatch(kind)
    if not (number or text) or any("pickle" in codec for codec in codecs):
        raise Refusal(
            f"array {name!r} holds {kind!r} by {codecs or 'no codec'}, not numbers; leave it out of the store"
        )
    return max(math.prod(map(int, found["shape"])), math.prod(map(int, chunks))) * 8


def _check_claims(claims: Iterator[tuple[str, int]], on_disk: int, times: int) -> None:
    total = 0
    for name, claimed in claims:
        total += claimed
        if total > max(FREE, times * on_disk):
            raise Refusal(
                f"with {name!r} it claims to hold {total / 2**30:,.3g} GiB, more than {times} times its {on_disk:,} "
                "bytes on disk; if that is right, write it without compression"
            )
