"""Inference tasks: one a module, each with ``model``, ``task`` and, where a closed form exists, ``exact``."""
