"""Eight problems, each in at most fifteen lines, and the truth that SciPy's solvers find for them.

A problem is measured where its parameter lies in one half of its range, and asked for in the other one too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_bvp, solve_ivp
from scipy.interpolate import RectBivariateSpline
from scipy.sparse import diags, eye, kron
from scipy.sparse.linalg import spsolve

from bayesdd import pinn

Truth = Callable[..., Any]  # of a parameter, places, and constants by name
CELLS = 128  # of a line, and of each side of the square
SOLVED = {"rtol": 1e-8, "atol": 1e-10}


def pendulum() -> pinn.Problem:
    """A damped pendulum from an angle, its damping unknown."""
    return pinn.Problem(
        inputs={"t": (0.0, 6.0)},
        parameters={"angle": (0.2, 2.6)},
        outputs=("u",),
        equation=lambda s, p: s.u_tt + p.c * s.u_t + torch.sin(s.u),
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.angle, u_t=0.0)],
        unknown={"c": (0.5, 0.3)},
    )


def lotka_volterra() -> pinn.Problem:
    """Prey and predators from different numbers of prey; four unknown rates."""
    return pinn.Problem(
        inputs={"t": (0.0, 6.0)},
        parameters={"start": (0.5, 2.5)},
        outputs=("prey", "hunters"),
        equation=lambda s, p: (
            s.prey_t - p.a * s.prey + p.b * s.prey * s.hunters,
            s.hunters_t - p.c * s.prey * s.hunters + p.d * s.hunters,
        ),
        conditions=[pinn.at(t=0.0, prey=lambda s, p: s.start, hunters=1.0)],
        unknown={"a": (1.0, 0.5), "b": (1.0, 0.5), "c": (1.0, 0.5), "d": (1.0, 0.5)},
    )


def poisson() -> pinn.Problem:
    """A membrane under a load, held on three sides; on the fourth its slope is given."""
    return pinn.Problem(
        inputs={"x": (0.0, 1.0), "y": (0.0, 1.0)},
        parameters={"k": (1.0, 4.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_xx + s.u_yy + 10 * torch.sin(s.k * s.x) * s.y,
        conditions=[pinn.at(x=(0.0, 1.0), u=0.0), pinn.at(y=0.0, u=0.0), pinn.at(y=1.0, u_y=0.0)],
    )


def wave() -> pinn.Problem:
    """A string that is displaced and struck; its speed unknown."""
    return pinn.Problem(
        inputs={"x": (0.0, 1.0), "t": (0.0, 1.0)},
        parameters={"push": (0.5, 3.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_tt - p.c**2 * s.u_xx,
        conditions=[
            pinn.at(t=0.0, u=lambda s, p: torch.sin(math.pi * s.x)),
            pinn.at(t=0.0, u_t=lambda s, p: s.push * torch.sin(2 * math.pi * s.x)),
            pinn.at(x=(0.0, 1.0), u=0.0),
        ],
        unknown={"c": (1.2, 0.3)},
    )


def korteweg_de_vries() -> pinn.Problem:
    """Shallow water: a hump of some height, on a ring."""
    return pinn.Problem(
        inputs={"x": (-4.0, 4.0), "t": (0.0, 0.5)},
        parameters={"height": (0.5, 1.5)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + 6 * s.u * s.u_x + s.u_xxx,
        conditions=[
            pinn.at(t=0.0, u=lambda s, p: s.height * torch.exp(-(s.x**2))),
            pinn.at(x=(-4.0, 4.0), u=pinn.periodic, u_x=pinn.periodic, u_xx=pinn.periodic),
        ],
    )


def beam() -> pinn.Problem:
    """A cantilever on an elastic bed of unknown stiffness, under a load of some wave number."""
    return pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        parameters={"k": (0.5, 6.0)},
        outputs={"w": (0.0, 1.0)},
        equation=lambda s, p: s.w_xxxx + p.bed * s.w - 5 * (1 + torch.sin(s.k * s.x)),
        conditions=[pinn.at(x=0.0, w=0.0, w_x=0.0), pinn.at(x=1.0, w_xx=0.0, w_xxx=0.0)],
        unknown={"bed": (5.0, 3.0)},
    )


def allen_cahn() -> pinn.Problem:
    """Two phases that separate, from a mixture of some contrast."""
    return pinn.Problem(
        inputs={"x": (-1.0, 1.0), "t": (0.0, 1.0)},
        parameters={"contrast": (0.3, 1.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t - 0.02 * s.u_xx - 3 * (s.u - s.u**3),
        conditions=[
            pinn.at(t=0.0, u=lambda s, p: s.contrast * torch.cos(math.pi * s.x)),
            pinn.at(x=(-1.0, 1.0), u_x=0.0),
        ],
    )


def heat() -> pinn.Problem:
    """A rod with an unknown source of heat along it, from an unequal temperature."""
    return pinn.Problem(
        inputs={"x": (0.0, 1.0), "t": (0.0, 1.0)},
        parameters={"start": (0.0, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t - 0.2 * s.u_xx - p.q,
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start * torch.sin(math.pi * s.x)), pinn.at(x=(0.0, 1.0), u=0.0)],
        unknown={"q": pinn.function("x", sd=2.0)},
    )


def _pendulum(angle: float, at: dict[str, np.ndarray], c: float) -> Any:
    return _path(lambda t, y: [y[1], -c * y[1] - np.sin(y[0])], [angle, 0.0], at["t"])[:1]


def _lotka_volterra(start: float, at: dict[str, np.ndarray], a: float, b: float, c: float, d: float) -> Any:
    return _path(lambda t, y: [a * y[0] - b * y[0] * y[1], c * y[0] * y[1] - d * y[1]], [start, 1.0], at["t"])


def _path(slope: Callable[..., Any], start: list[float], t: np.ndarray) -> np.ndarray:
    found: np.ndarray = solve_ivp(slope, (0, 6), start, rtol=1e-10, atol=1e-12, dense_output=True).sol(t)
    return found


def _poisson(k: float, at: dict[str, np.ndarray]) -> Any:
    return _membrane(k)(at["x"], at["y"], grid=False)[None]


@functools.cache
def _membrane(k: float) -> Any:
    """Finite differences of second order, extrapolated to fourth from two grids."""
    fine, coarse = (_squares(k, cells) for cells in (CELLS, CELLS // 2))
    x = np.linspace(0, 1, CELLS // 2 + 1)
    return RectBivariateSpline(x, x, (4 * fine[::2, ::2] - coarse) / 3)


def _squares(k: float, cells: int) -> np.ndarray:
    h, inner = 1 / cells, cells - 1
    x, y = np.arange(1, cells) * h, np.arange(1, cells + 1) * h
    in_x = diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(inner, inner), dtype=float).tolil()
    in_y = diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(cells, cells), dtype=float).tolil()
    in_y[-1, -2] = 2  # the slope at y = 1 is zero: what lies beyond mirrors what lies before
    both = (kron(in_x, eye(cells)) + kron(eye(inner), in_y)).tocsc() / h**2
    found = np.zeros((cells + 1, cells + 1))
    found[1:-1, 1:] = spsolve(both, -10 * np.outer(np.sin(k * x), y).ravel()).reshape(inner, cells)
    return found


def _wave(push: float, at: dict[str, np.ndarray], c: float) -> Any:
    x = np.arange(1, CELLS) / CELLS

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate([y[CELLS - 1 :], (c * CELLS) ** 2 * _curved(y[: CELLS - 1])])

    start = np.concatenate([np.sin(math.pi * x), push * np.sin(2 * math.pi * x)])
    return _line(slope, start, at, lambda y: np.concatenate([[0], y[: CELLS - 1], [0]]))


def _heat(start: float, at: dict[str, np.ndarray]) -> Any:
    x = np.arange(1, CELLS) / CELLS
    source = heat_source(x)
    return _line(
        lambda t, y: 0.2 * CELLS**2 * _curved(y) + source,
        start * np.sin(math.pi * x),
        at,
        lambda y: np.concatenate([[0], y, [0]]),
    )


def heat_source(x: np.ndarray) -> np.ndarray:
    """The rod's source, that its problem does not know."""
    found: np.ndarray = 3 * np.exp(-20 * (x - 0.6) ** 2)
    return found


def _allen_cahn(contrast: float, at: dict[str, np.ndarray]) -> Any:
    x = np.linspace(-1, 1, CELLS + 1)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        beyond = np.concatenate([[y[1]], y, [y[-2]]])
        return 0.02 * (CELLS / 2) ** 2 * (beyond[2:] - 2 * y + beyond[:-2]) + 3 * (y - y**3)

    return _line(slope, contrast * np.cos(math.pi * x), at, lambda y: y)


def _korteweg_de_vries(height: float, at: dict[str, np.ndarray]) -> Any:
    """In Fourier's modes, with the third derivative taken exactly."""
    x = np.linspace(-4, 4, CELLS, endpoint=False)
    wave = 1j * 2 * math.pi * np.fft.rfftfreq(CELLS, 8 / CELLS)
    kept = np.arange(len(wave)) < len(wave) * 2 / 3  # of a product, the modes that are not aliased

    def slope(t: float, v: np.ndarray) -> np.ndarray:
        turn = np.exp(-(wave**3) * t)
        u = np.fft.irfft(turn * (v[: len(wave)] + 1j * v[len(wave) :]))
        change = -3 * wave * kept * np.fft.rfft(u**2) / turn
        return np.concatenate([change.real, change.imag])

    first = np.fft.rfft(height * np.exp(-(x**2)))
    times = np.linspace(0, 0.5, 65)
    v = solve_ivp(slope, (0, 0.5), np.concatenate([first.real, first.imag]), t_eval=times, method="DOP853", **SOLVED).y
    u = np.fft.irfft(np.exp(-(wave**3) * times[:, None]) * (v[: len(wave)] + 1j * v[len(wave) :]).T)
    around = np.concatenate([u[:, -8:], u, u[:, :9]], 1)
    places = np.linspace(-4 - 8 * 8 / CELLS, 4 + 8 * 8 / CELLS, CELLS + 17)
    return RectBivariateSpline(times, places, around)(at["t"], at["x"], grid=False)[None]


def _beam(k: float, at: dict[str, np.ndarray], bed: float) -> Any:
    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([y[1], y[2], y[3], 5 * (1 + np.sin(k * x)) - bed * y[0]])

    def ends(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.array([left[0], left[1], right[2], right[3]])

    x = np.linspace(0, 1, 101)
    return solve_bvp(slope, ends, x, np.zeros((4, len(x))), tol=1e-9).sol(at["x"])[:1]


def _line(
    slope: Callable[..., Any], start: np.ndarray, at: dict[str, np.ndarray], whole: Callable[..., Any]
) -> np.ndarray:
    """The method of lines: the whole line at 65 times, by splines between."""
    times = np.linspace(0, 1, 65)
    y = solve_ivp(slope, (0, 1), start, t_eval=times, method="LSODA", **SOLVED).y
    u = np.stack([whole(one) for one in y.T])
    low = -1.0 if len(start) > CELLS and len(u[0]) == len(start) else 0.0
    found: np.ndarray = RectBivariateSpline(times, np.linspace(low, 1, u.shape[1]), u)(at["t"], at["x"], grid=False)
    return found[None]


def _curved(y: np.ndarray) -> np.ndarray:
    """Second differences between ends that are zero."""
    beyond = np.concatenate([[0], y, [0]])
    found: np.ndarray = beyond[2:] - 2 * y + beyond[:-2]
    return found


# Problem, truth, noise of a measurement, true constants
PROBLEMS: dict[str, tuple[Callable[[], pinn.Problem], Truth, float, dict[str, float]]] = {
    "damped pendulum": (pendulum, _pendulum, 0.1, {"c": 0.3}),
    "Lotka-Volterra": (lotka_volterra, _lotka_volterra, 0.1, {"a": 1.5, "b": 1.0, "c": 0.8, "d": 1.0}),
    "Poisson, Neumann side": (poisson, _poisson, 0.02, {}),
    "wave": (wave, _wave, 0.05, {"c": 1.0}),
    "Korteweg-de Vries": (korteweg_de_vries, _korteweg_de_vries, 0.05, {}),
    "beam": (beam, _beam, 0.02, {"bed": 8.0}),
    "Allen-Cahn": (allen_cahn, _allen_cahn, 0.05, {}),
    "heat, unknown source": (heat, _heat, 0.02, {}),
}

# Truth of unknown functions at places
FUNCTIONS: dict[str, dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]]] = {
    "heat, unknown source": {"q": lambda at: heat_source(at["x"])}
}
