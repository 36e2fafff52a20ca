"""Engine: every backend gives what one run a draw gives, in value and derivatives, wherever it is called."""

import pytest
import torch
from torch.func import hessian, jvp, vmap

from bayesdd.task.engine import GRAPHS_KEPT, Engine, choose_backend, derivatives

# torch.func.jvp scripts its decompositions on first use.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

ROWS = {
    "x": torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    "g": torch.arange(5) % 2,
}
DRAWS = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CONSTANT = torch.tensor([0.5, 2.0], dtype=torch.float64)


def smooth(flat, columns):
    """A constant of the module, tensors made inside, an index: all that a recorded graph must carry over."""
    eta = columns["x"] @ (flat * CONSTANT) + torch.arange(2.0)[columns["g"]] * torch.ones(()) * 0.1
    return torch.sigmoid(eta) * flat.exp().sum()


def exact(draws):
    eta = draws @ (ROWS["x"] * CONSTANT).T + 0.1 * ROWS["g"]
    return torch.sigmoid(eta) * draws.exp().sum(1, keepdim=True)


@pytest.mark.parametrize("backend", ["graph", "vmap", "loop"])
def test_backends_give_the_formula_and_its_derivatives(backend):
    engine = Engine(smooth, backend)
    torch.testing.assert_close(engine(DRAWS, ROWS), exact(DRAWS))
    found, loop = derivatives(engine, DRAWS, ROWS), derivatives(Engine(smooth, "loop"), DRAWS, ROWS)
    leaf = DRAWS.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(exact(leaf).sum(), leaf)
    torch.testing.assert_close(found["draws"], slope)
    assert set(found) == {"", "draws", "curvature", "x"}
    for name in found:
        torch.testing.assert_close(found[name], loop[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["graph", "vmap", "loop"])
def test_tensors_made_inside_are_float64_at_every_call(backend, dtype):
    def single(flat, columns):
        return flat.sum() + torch.full((5,), 0.1) + torch.ones(5) / 3

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        value = Engine(single, backend)(DRAWS, ROWS)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(value, (DRAWS.sum(1) + 0.1 + 1 / 3)[:, None].expand(3, 5), rtol=1e-14, atol=0)


@pytest.mark.parametrize("backend", ["graph", "vmap", "loop"])
def test_torch_func_transforms_see_the_derivatives(backend):
    engine = Engine(smooth, backend)
    point = DRAWS[0]
    engine(point[None], ROWS)  # a graph of this shape is at hand
    torch.testing.assert_close(
        hessian(lambda flat: engine(flat[None], ROWS).sum())(point),
        hessian(lambda flat: exact(flat[None]).sum())(point),
    )
    torch.testing.assert_close(
        jvp(lambda flat: engine(flat, ROWS), (DRAWS,), (DRAWS,))[1], jvp(exact, (DRAWS,), (DRAWS,))[1]
    )
    if backend != "loop":
        torch.testing.assert_close(vmap(lambda flat: engine(flat[None], ROWS)[0])(DRAWS), exact(DRAWS))


def test_a_recorded_graph_serves_new_values_of_the_same_shape_without_running_the_model():
    calls = []

    def single(flat, columns):
        calls.append(1)
        return smooth(flat, columns)

    engine = Engine(single, "graph")
    engine(DRAWS, ROWS)
    shifted = {**ROWS, "x": ROWS["x"] + 1}
    torch.testing.assert_close(engine(DRAWS + 1, shifted), Engine(smooth, "loop")(DRAWS + 1, shifted))
    assert len(calls) == 1
    engine(DRAWS[:2], ROWS)
    assert len(calls) == 2


def test_graphs_kept_are_bounded():
    engine = Engine(lambda flat, columns: flat.sum(), "graph")
    for size in range(1, GRAPHS_KEPT + 5):
        engine(torch.zeros(size, 2, dtype=torch.float64), ROWS)
    assert len(engine._graphs) == GRAPHS_KEPT


REFUSED = {
    "graph": (smooth, "graph", ""),
    "item": (lambda flat, c: flat.sum() * float(c["x"].sum()), "vmap", "value"),
    "shape": (lambda flat, c: flat.sum() * c["x"][c["g"] > 0].sum(), "vmap", "shape"),
    "number of a sum in place": (
        lambda flat, c: flat.sum() * float(torch.zeros(5, 2).add_(c["x"])[0].sum()), "vmap", "number"
    ),
    "control flow on a draw": (lambda flat, c: flat.sum() if flat.sum() > 0 else -flat.sum(), "loop", "data-dependent"),
    "autograd inside": (
        lambda flat, c: torch.autograd.grad((flat.requires_grad_() ** 3).sum(), flat, create_graph=True)[0], "loop", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_fastest_backend_that_agrees_is_chosen_and_the_reason_given(name):
    single, backend, reason = REFUSED[name]
    found, why = choose_backend(single, DRAWS, ROWS)
    assert found == backend and reason in why and "\n" not in why


def test_a_value_recorded_as_a_constant_is_noticed():
    """NumPy sees no proxies: the first value would stay in the graph for ever."""

    def single(flat, columns):
        return flat.sum() * torch.tensor(columns["x"].detach().numpy().copy()[0, 0])

    assert choose_backend(single, DRAWS, ROWS)[0] != "graph"


def test_gradients_in_the_columns_decide_too():
    class Stop(torch.autograd.Function):
        """Value right, gradient wrong under vmap: the batched rule forgets the column."""

        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, slope):
            return slope

        @staticmethod
        def vmap(info, in_dims, x):
            return x.detach().clone(), in_dims[0]

    def single(flat, columns):
        return flat.sum() * Stop.apply(columns["x"] * flat).sum(1)

    assert choose_backend(single, DRAWS, ROWS)[0] == "loop"


def test_columns_without_a_path_have_no_gradient():
    found = derivatives(Engine(lambda flat, c: flat.sum() * c["x"].long().sum(), "vmap"), DRAWS, ROWS)
    assert found["x"] is None and found["draws"] is not None


def test_bytes_per_cell_grow_with_what_a_model_keeps():
    def wide(flat, columns):
        return (columns["x"][:, :1] * flat.sum()).expand(-1, 50).exp().sum(1)

    small, large = (Engine(single, "graph").bytes_per_cell(DRAWS, ROWS) for single in (smooth, wide))
    assert 8 < small < large
    assert Engine(smooth, "loop").bytes_per_cell(DRAWS, ROWS) > 0


@pytest.mark.parametrize("backend", ["graph", "vmap"])
def test_nothing_assumes_the_cpu(backend):
    """The meta device has shapes and no values: whatever stayed on the CPU would be refused."""

    def single(flat, columns):
        own = CONSTANT if backend == "graph" else CONSTANT.to(flat.device)
        return (columns["x"] * own) @ flat + torch.arange(5.0) + torch.ones(5)

    there = {name: column.to("meta") for name, column in ROWS.items()}
    engine = Engine(single, backend)
    engine(DRAWS, ROWS)
    value = engine(DRAWS.to("meta"), there)
    assert value.device.type == "meta" and value.shape == (3, 5) and value.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["graph", "vmap", "loop"])
def test_the_gpu_gives_the_same_numbers(backend):
    single = smooth if backend == "graph" else lambda f, c: smooth(f, c) if f.device.type == "cpu" else (
        torch.sigmoid(c["x"] @ (f * CONSTANT.to(f.device)) + torch.arange(2.0)[c["g"]] * 0.1) * f.exp().sum()
    )  # fmt: skip
    there = {name: column.cuda() for name, column in ROWS.items()}
    torch.testing.assert_close(Engine(single, backend)(DRAWS.cuda(), there).cpu(), exact(DRAWS))
