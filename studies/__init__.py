"""Studies: one claim a module, run as ``python -m studies.NAME [--smoke]``; a leading underscore marks a part."""
