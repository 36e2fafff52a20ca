"""The verdict: how far a distilled posterior is from the full one, in nats, with standard errors."""

from bayesdd.certificate._certify import certify as certify
