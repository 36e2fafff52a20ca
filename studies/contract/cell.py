"""One cell of ``contract``: a model form distilled with one seed, its true KLs beside the certificate's."""

from __future__ import annotations

import time
import warnings
from typing import Any

from bayesdd import CertificateWarning, Refusal, distill
from bayesdd.numerics.refusal import WrongType
from studies.contract.form import Form
from studies.contract.forms import FORMS
from studies.contract.truth import density_error, truth
from studies.shared import cells


def measure(name: str, seed: str | int) -> dict[str, Any]:
    """One cell: distils, then computes the true KLs.

    Args:
        name: A form.
        seed: Seed of the data and of the distillation.

    Returns:
        What goes into the cell's file: sizes, both certificates and true KLs, processor seconds; or ``refused``, its
        line; or ``fault``, the last line of the traceback of an error that is no refusal.
    """
    cells.set_threads()
    form = next(form for form in FORMS if form.name == name)
    begin = time.process_time()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task = form.task(int(seed))
            distilled = distill(task, size=chosen_size(form, task.dim), seed=int(seed), progress=False)
    except (Refusal, WrongType) as error:
        return {"refused": str(error), "seconds": time.process_time() - begin}
    except Exception as error:  # a fault of bayesdd is a result of this study
        return {"fault": f"{type(error).__name__}: {error}", "seconds": time.process_time() - begin}
    seconds = time.process_time() - begin
    certificate = distilled.certificate
    assert certificate is not None  # distill attaches one
    return {
        "rows": task.size,
        "dim": task.dim,
        "size": len(distilled),
        "seconds": seconds,
        "ok": certificate.ok,
        "tolerance": certificate.tolerance,
        "said": {key: value for key, value in certificate.to_dict().items() if key.startswith("kl_")},
        "warned": [str(w.message) for w in caught if issubclass(w.category, CertificateWarning)],
        "kinds": {column: kind.name for column, kind in task.column_kinds.items()},
        "density_error": max(density_error(task, rows, int(seed)) for rows in (task.data, distilled.data)),
        "true": truth(form, task, distilled, int(seed)),
    }


def chosen_size(form: Form, dim: int) -> int:
    """Synthetic rows M: those of the form, else 2 P + 4."""
    return 2 * dim + 4 if form.size is None else form.size
