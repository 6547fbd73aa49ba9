"""Floor 2, on lake: which tables are contained in which others, exactly.

Import the module that is meant; this file stays empty so that doing so loads nothing else.
"""
