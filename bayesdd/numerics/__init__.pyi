from .devices import resolve as resolve
from .gaussian import Gaussian as Gaussian
from .levenberg_marquardt import least_squares as least_squares
from .optimise import lbfgs as lbfgs
from .pareto import khat as khat
from .refusal import MissingPackage as MissingPackage
from .refusal import Refusal as Refusal
from .refusal import WrongType as WrongType
