"""The outer loop: closed form, fixed particles, on-policy rounds, certificate."""

from bayesdd.distillation._distill import distill as distill
