"""Simulation-based calibration: do posteriors, of all rows or distilled ones, hold the truth as often as they say?"""

from bayesdd.calibration._calibrate import Calibration as Calibration
from bayesdd.calibration._calibrate import calibrate as calibrate
