"""Floor 2, on lake: a vector index that many tenants share and each searches as if it were its own.

Import the module that is meant; this file stays empty so that doing so loads nothing else.
"""
