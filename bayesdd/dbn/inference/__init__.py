"""Posteriors of a template: conjugate, Gibbs, and pooled over sources."""
