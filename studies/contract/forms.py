"""All model forms, by family."""

from studies.contract import (
    forms_curves,
    forms_discrete,
    forms_hierarchical,
    forms_mixtures,
    forms_regressions,
    forms_sequences,
    forms_survival,
)

FAMILIES = (
    forms_regressions,
    forms_curves,
    forms_discrete,
    forms_survival,
    forms_hierarchical,
    forms_sequences,
    forms_mixtures,
)
FORMS = tuple(form for family in FAMILIES for form in family.FORMS)
SMOKE = ("linear_known", "exponential", "logistic")  # a closed form, a grid, a bridge
