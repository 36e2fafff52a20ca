"""The three sorts of objectives, told apart; users' own functions among them."""

from functools import partial

import pytest
import torch

from bayesdd import objectives
from bayesdd.networks import function_space
from bayesdd.objectives.sorts import Functional, Matching, Standalone, name_of, sort_of, standalone


def functional(log_ratio, log_weight, *, power=2.0):
    return (log_weight.exp() * log_ratio.abs() ** power).sum()


def matching(reference, *, draws):
    return lambda rows, weight: weight.sum()


@standalone
def declared(target, seed, say, *, purpose):
    """Never called."""


class Callable:
    def __call__(self, log_ratio, log_weight):
        return log_ratio.sum()


@pytest.mark.parametrize(
    ("objective", "sort", "name"),
    [
        (functional, Functional, "functional"),
        (partial(functional, power=1.5), Functional, "functional(power=1.5)"),
        (lambda a, b: a.sum(), Functional, "<lambda>"),
        (Callable(), Functional, "Callable"),
        (partial(partial(objectives.renyi), alpha=2.0), Functional, "renyi(alpha=2.0)"),
        (objectives.fisher, Matching, "fisher"),
        (partial(matching, draws=torch.zeros(3)), Matching, "matching()"),
        (partial(declared, purpose="any"), Standalone, "declared(purpose=any)"),
        (partial(function_space, purpose={}, steps=3), Standalone, "function_space(steps=3)"),
    ],
)
def test_sorts_and_names(objective, sort, name):
    assert sort_of(objective) is sort and name_of(objective) == name


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (matching, r"matching lacks the setting 'draws': pass functools.partial\(matching, draws=...\)"),
        (declared, "declared lacks the setting 'purpose'"),
        (lambda target, seed, say: None, "needs a function .log_ratio, log_weight.*of 3 arguments"),
        ("reverse_kl", "needs a function .log_ratio, log_weight.*got str"),
    ],
)
def test_what_is_of_no_sort_is_refused(objective, words):
    """Nothing stands alone by the names of its arguments."""
    with pytest.raises(TypeError, match=words):
        sort_of(objective)


def test_settings_are_tried_at_once():
    with pytest.raises(ValueError, match="order alpha > 0"):
        sort_of(partial(objectives.renyi, alpha=-1.0))
