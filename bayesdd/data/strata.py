"""Rows in which a column takes each of its values, rare ones too, found among all rows wherever they are."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from bayesdd.data.columns import Columns, separated
from bayesdd.data.disk import Stored
from bayesdd.data.rows import Rows
from bayesdd.numerics.refusal import Refusal

OF_EACH = 8  # rows of a value: enough that starts differ, and few beside the sample
MOST_VALUES = 1000  # as many as labels of text: a column of more is a measurement


def with_each_value(rows: Rows, name: str) -> Columns:
    """The sample, and where that is not all rows the first ``OF_EACH`` of all rows with each value of a column.

    One pass over that column.

    Raises:
        Refusal: It has more than ``MOST_VALUES`` values or several a row, or a query gives its rows in another order
            each time.
    """
    _refuse_many(len(torch.unique(keys(rows.sample[name]))), name)
    if not isinstance(rows, Stored) or len(rows.numbers) == rows.size:
        return rows.sample
    only = rows.chosen(lambda there: [one for one in there if one == name], None, None)
    found: dict[int | float, list[int]] = {}
    at = 0
    for block in only.blocks(0, only.size, only.most, pin=False):
        every, place = torch.unique(keys(block[name]), return_inverse=True)
        for number, value in enumerate(every.tolist()):
            here = found.setdefault(value, [])
            if len(here) < OF_EACH:
                here += (at + (place == number).nonzero()[: OF_EACH - len(here), 0]).tolist()
        _refuse_many(len(found), name)
        at += len(place)
    more = separated(rows.take(torch.tensor(sorted(chain.from_iterable(found.values())))))[0]
    if len(torch.unique(keys(more[name]))) != len(found):
        raise Refusal(
            f"{rows.medium.where}: its rows come in another order each time, so that those of rare values of {name!r} "
            "are not found again: write them to Parquet, or leave stratify= out"
        )
    return {one: torch.cat([column, more[one].to(column)]) for one, column in rows.sample.items()}


def keys(column: Tensor) -> Tensor:
    """Each row's value as one number, missing ones infinite, ``(N,)``.

    Raises:
        Refusal: It has several numbers a row.
    """
    flat = column.reshape(len(column), -1)
    if flat.shape[1] != 1:
        raise Refusal(f"stratify= takes a column of one number a row, and this one has {flat.shape[1]}")
    return flat[:, 0].nan_to_num(torch.inf) if column.is_floating_point() else flat[:, 0]


def _refuse_many(count: int, name: str) -> None:
    if count > MOST_VALUES:
        raise Refusal(
            f"stratify= names {name!r}, which has more than {MOST_VALUES:,} values: each value is a stratum, so name a "
            "column of few, such as the outcome or a group"
        )
