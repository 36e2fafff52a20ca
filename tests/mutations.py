"""Faults put into the code one at a time, each of which tests must see: ``python tests/mutations.py``.

Every fault is tried on a clone of what is committed, with the tests named beside it. One that leaves them green is a
hole in the tests, and the command fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A fault.

    Attributes:
        fault: What goes wrong, in words.
        file: Where, from the root.
        old: Text that stands there once.
        new: What takes its place.
        tests: Tests that must turn red: arguments of pytest.
    """

    fault: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "sign of the certificate's log-ratio flipped",
        "bayesdd/certificate/verdict.py",
        "ratio = full - distilled.sweep(flat)",
        "ratio = distilled.sweep(flat) - full",
        "tests/certificate/test_certify.py",
    ),
    Mutation(
        "sign of the reverse KL flipped",
        "bayesdd/objectives/_reverse_kl.py",
        "return (log_weight + log_ratio - mean).logsumexp(0)",
        "return -(log_weight + log_ratio - mean).logsumexp(0)",
        "tests/objectives tests/certificate/test_certify.py",
    ),
    Mutation(
        "weights of synthetic rows dropped from sweeps",
        "bayesdd/density/density.py",
        "return by_row.sum(1) if weight is None else by_row @ weight",
        "return by_row.sum(1)",
        "tests/density/test_density.py",
    ),
    Mutation(
        "weights of synthetic rows dropped from gradients",
        "bayesdd/density/density.py",
        "return part.task.joint_gradient(part.rows.columns, part.weight, draws)",
        "return part.task.joint_gradient(part.rows.columns, torch.ones_like(part.weight), draws)",
        "tests/density/test_density.py tests/inference/test_inference.py",
    ),
    Mutation(
        "prior doubled",
        "bayesdd/density/density.py",
        "return total + by_part[0][:, -1]",
        "return 2 * total + by_part[0][:, -1]",
        "tests/density/test_density.py",
    ),
    Mutation(
        "prior of a shared site counted by every source",
        "bayesdd/density/density.py",
        "kept = torch.zeros(len(task.structure.sites) + 1, dtype=torch.float64)",
        "kept = torch.ones(len(task.structure.sites) + 1, dtype=torch.float64)",
        "tests/density/test_density.py",
    ),
    Mutation(
        "N lost: only the last block of rows counts",
        "bayesdd/density/density.py",
        "total[0][at] += _weighted(part.task.log_likelihood(rows, local[at]), weight)",
        "total[0][at] = _weighted(part.task.log_likelihood(rows, local[at]), weight)",
        "tests/density tests/data/test_disk.py",
    ),
    Mutation(
        "N lost: starting rows weigh one each",
        "bayesdd/distillation/stratified.py",
        "torch.full((share,), count / share, dtype=torch.float64)",
        "torch.full((share,), 1.0, dtype=torch.float64)",
        "tests/distillation/test_stratified.py",
    ),
    Mutation(
        "stale particles: rounds never draw anew",
        "bayesdd/distillation/rounds.py",
        "draws = _fresh(run, problem, vector, turn, draws)",
        "draws = draws or _fresh(run, problem, vector, turn, draws)",
        "tests/distillation/test_distill.py -k draws_anew",
    ),
    Mutation(
        "k-hat not looked at",
        "bayesdd/certificate/estimates.py",
        "if not shape < KHAT_LIMIT:",
        "if False:",
        "tests/certificate/test_certify.py",
    ),
    Mutation(
        "the second look is not believed",
        "bayesdd/certificate/verdict.py",
        "if side.far > SERIOUS * tolerance and short > (2 * error if math.isfinite(error) else 0.0):",
        "if False:",
        "tests/certificate/test_looks.py",
    ),
    Mutation(
        "lock around public verbs removed",
        "bayesdd/numerics/exclusive.py",
        "with LOCK, one_thread(), torch.inference_mode(False), torch.enable_grad():",
        "with one_thread(), torch.inference_mode(False), torch.enable_grad():",
        "tests/numerics/test_exclusive.py",
    ),
    Mutation(
        "lock on files removed",
        "bayesdd/data/files.py",
        "        lock.acquire()\n",
        "        pass\n",
        "tests/data/test_files.py tests/cli",
    ),
    Mutation(
        "content hash of files unchecked",
        "bayesdd/data/seal.py",
        "if str(dataset.attrs[SEAL]) != _digest(dataset, part):",
        "if False:",
        "tests/data/test_seal.py",
    ),
    Mutation(
        "hash of checkpoints' records unchecked",
        "bayesdd/density/checkpoint.py",
        'if one["sha256"] == _hash(key, record):',
        "if True:",
        "tests/density/test_checkpoint.py",
    ),
    Mutation(
        "importance sampling kept where its batches disagree",
        "bayesdd/dbn/inference/drawing.py",
        " and not rhat > min(1 + AGREED / each, RHAT)",
        "",
        "tests/dbn/inference/test_importance.py",
    ),
    Mutation(
        "repeated draws of importance sampling counted as independent",
        "bayesdd/dbn/inference/drawing.py",
        "min(found.points.shape[1], found.ess / CHAINS)",
        "found.points.shape[1]",
        "tests/dbn/inference/test_importance.py",
    ),
    Mutation(
        "no word of variables with as many parents as are looked at",
        "bayesdd/dbn/learning/_edges.py",
        "if full and max_parents is None:",
        "if False:",
        "tests/dbn/learning/test_edges.py",
    ),
)


def main() -> int:
    """Tries the faults and prints what became of each; 1 if one was not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose description contains this")
    chosen = [one for one in MUTATIONS if parser.parse_args().only in one.fault]
    begin, unseen = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for one in chosen:
            path = clone / one.file
            shutil.copy(path, Path(folder) / "before")
            path.write_text(path.read_text(encoding="utf-8").replace(one.old, one.new), encoding="utf-8")
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *one.tests.split()]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            code = subprocess.run(command, cwd=clone, env=environment, capture_output=True, check=False).returncode
            shutil.copy(Path(folder) / "before", path)
            unseen += code != 1
            seen = {0: "NOT SEEN", 1: "seen"}.get(code, f"tests did not run (pytest's exit code {code})")
            print(f"{seen}: {one.fault} ({one.file})", flush=True)
    print(f"{len(chosen) - unseen} of {len(chosen)} faults seen, {(time.perf_counter() - begin) / 60:.1f} minutes")
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
