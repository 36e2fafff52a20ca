"""Figures and pages: what a distilled set is worth, drawn by matplotlib, and told on one HTML page."""

from bayesdd.reports._plot_calibration import plot_calibration as plot_calibration
from bayesdd.reports._plot_certificate import plot_certificate as plot_certificate
from bayesdd.reports._plot_field import plot_field as plot_field
from bayesdd.reports._plot_network import plot_network as plot_network
from bayesdd.reports._plot_posteriors import plot_posteriors as plot_posteriors
from bayesdd.reports._plot_rounds import plot_rounds as plot_rounds
from bayesdd.reports._plot_rows import plot_rows as plot_rows
from bayesdd.reports._plot_sequences import plot_sequences as plot_sequences
from bayesdd.reports._plot_weights import plot_weights as plot_weights
from bayesdd.reports._report import report as report
