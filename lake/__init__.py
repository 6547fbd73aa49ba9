"""Floor 1: the catalog over Parquet. Store port, log, snapshots, tables, deletes, scan, SQL session.

Import the module that is meant (``lakelet.lake.errors``); this file stays empty so that doing so loads no Arrow.
"""
