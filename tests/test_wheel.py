"""The wheel alone: built, installed into a fresh environment without the checkout, and used there."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import importlib.util, warnings
import bayesdd, torch
from bayesdd import dbn, pinn
assert "fresh" in bayesdd.__file__, bayesdd.__file__
assert importlib.util.find_spec("models") is None and importlib.util.find_spec("studies") is None
torch.set_num_threads(1)

import clinic
task = clinic.task()
distilled = bayesdd.distill(task, size=12, seed=0, progress=False)
assert distilled.certificate.ok and bayesdd.certify(task, distilled).ok
idata = bayesdd.sample(task, distilled, draws=50, chains=2)
assert idata.posterior["w"].shape == (2, 50, 3)

template = dbn.Template(("dose", "symptom"), intra=(("dose", "symptom"),), inter=(("symptom", "symptom"),))
values = {site: torch.full(shape, 0.3, dtype=torch.float64) for site, shape in template.sites.items()}
rows = dbn.simulate(template, values, 60, 3, 0)["x"]
sources = [dbn.Source({"x": rows[:30]}), dbn.Source({"x": rows[30:, :, :1]}, variables=("dose",))]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", bayesdd.CertificateWarning)
    merged = dbn.merge(template, sources, size=4, seed=0)
assert len(merged) > 0 and merged.data["x"].shape[1:] == (3, 2)

problem = pinn.Problem(
    inputs={"x": (0.0, 1.0)},
    parameters={"alpha": (0.1, 1.9)},
    outputs=("u",),
    equation=lambda s, p: s.u_xx - 2 * s.u**3,
    conditions=[pinn.at(x=0.0, u=lambda s, p: s.alpha), pinn.at(x=1.0, u=lambda s, p: s.alpha / (1 + s.alpha))],
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", pinn.FitWarning)
    surrogate = pinn.fit(problem, hidden=(4,), points=32, modes=1, steps=5)
assert [part.size for part in surrogate.target] == [32, 64, 64]
assert surrogate.predict({"x": [0.5], "alpha": [1.0]})["u"][0].shape == (1,)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Python of an environment with the wheel, and with the packages of this one but for the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    venv.create(folder / "fresh")
    python = folder / "fresh" / "bin" / "python"
    (wheel,) = folder.glob("bayesdd-*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    # A path in a .pth file is searched without its own .pth files: the editable checkout stays out.
    (Path(packages.strip()) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python, folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_what_pip_installs_is_the_whole_product(fresh, tmp_path):
    command = fresh.parent / "bayesdd"
    run(command, tmp_path, "new", "clinic.py")
    run(fresh, tmp_path, "-W", "ignore::FutureWarning", "-c", PROGRAM)
    for line in (
        "distill clinic:task --size 20 --seed 0 --out d.nc",
        "certify clinic:task --distilled d.nc",
        "sample clinic:task --distilled d.nc --draws 50 --out posterior.nc",
    ):
        run(command, tmp_path, *line.split())
