"""Every bound in one place, each with its unit in its name."""

from __future__ import annotations

from typing import Final

# Commits
COMMIT_RETRY_SECONDS: Final = 30.0
"""A commit that keeps losing races gives up with Conflict after this long."""
COMMIT_BASE_AGE_SECONDS: Final = 600.0
"""A writer whose base snapshot is older than this starts again from the latest one."""
COMMIT_GROUP_CHANGES: Final = 10_000
"""Changes of concurrent commits in one process that may share one log file."""
LOG_ENTRY_BYTES: Final = 256 * 2**20
"""A log entry above this is refused: split the commit."""
CHECKPOINT_EVERY_VERSIONS: Final = 100
"""A checkpoint is written off the commit path every so many versions."""
RETENTION_SECONDS: Final = 7 * 86_400.0
"""Versions younger than this are kept by expire unless the caller says otherwise."""
RETENTION_MIN_SECONDS: Final = 86_400.0
"""Log entries younger than this are never deleted, whatever the caller says."""
VACUUM_GRACE_SECONDS: Final = 86_400.0
"""Unreferenced files younger than this are never deleted: a commit may be on its way."""

# Names and schemas
NAME_BYTES: Final = 255
"""Longest name of a table or view, in UTF-8."""
COLUMNS: Final = 100_000
"""Most top-level columns of one table."""

# Scans and SQL
SCAN_BATCH_ROWS: Final = 131_072
"""Rows of one batch that a scan yields."""
WHERE_BYTES: Final = 1_000_000
"""Longest text of a ``where`` or a query."""
WHERE_CACHE_ENTRIES: Final = 1_024
"""Compiled predicates kept by text."""
RELATION_CACHE_ENTRIES: Final = 256
"""Tables whose SELECT over their files is kept between queries."""
RELATION_TABLE_BYTES: Final = 4 * 2**20
"""Positions of a retired table's rows above this are not kept between queries."""
FOOTER_CACHE_BYTES: Final = 512 * 2**20
"""Parsed Parquet footers kept in memory."""
FOOTER_BYTES: Final = 256 * 2**20
"""A Parquet footer above this is refused as not a footer."""

# Containment
CONTAINMENT_MEMORY_BYTES: Final = 1 * 2**30
"""Row hashes held in memory before they spill to disk."""
CONTAINMENT_EDGES: Final = 5_000_000
"""``edges`` of more rows than this raise LimitExceeded; iter_edges() streams them."""

# Terminal
PROGRESS_DELAY_SECONDS: Final = 0.5
"""Work shorter than this shows no progress bar."""

# Tables
TABLE_CACHE_ENTRIES: Final = 20_000
"""Table objects kept with their parsed footers while nothing about the table changes."""
CONTAINMENT_RENAME_BYTES: Final = 256 * 2**20
"""Compressed bytes of columns that the search for renamed columns may read."""

# Read counts
ACCESS_FLUSH_SECONDS: Final = 60.0
"""Reads that were counted are written in the background this long after the first of them."""
ACCESS_READ_ROUNDS: Final = 10
"""A reader of counts whose objects are merged under its hands looks again this often."""
ACCESS_FETCH_OBJECTS: Final = 256
"""Objects with counts that are fetched side by side."""

# Vectors
VECTOR_DIMENSIONS: Final = 16_384
"""Most dimensions of a vector."""
VECTOR_BITS: Final = 8
"""Most bits of a dimension in codes that stand in for vectors."""
VECTOR_K: Final = 16_384
"""Most neighbours, or candidates, of one query."""
VECTOR_DELTA_ROWS: Final = 4_096
"""New rows stand in deltas of so many until they are merged into a segment."""
VECTOR_BULK_ROWS: Final = 8_192
"""A batch of so many rows becomes a segment at once."""
VECTOR_ROW_BYTES: Final = 140
"""What a row may take beside its vector, copies included that speed up searches of large and of small tenants."""
VECTOR_PREDICATE_BYTES: Final = 64 * 2**20
"""Lists of predicates over tenants kept a segment."""
VECTOR_PREDICATES: Final = 1_024
"""Predicates over tenants whose lists are kept a segment."""
VECTOR_ATTRIBUTES: Final = 1_000
"""Most attributes of one index."""
VECTOR_MATCH_BYTES: Final = 32 * 2**20
"""Which rows fulfil a condition, kept a unit for the conditions that come again."""
VECTOR_SEGMENT_BYTES: Final = 2 * 2**30
"""Vectors and kept columns of one segment of an index in the lake, but that a data file is not split."""
VECTOR_SEGMENT_CACHE_BYTES: Final = 32 * 2**30
"""Local copies of the segments of lakes in object stores; those that were not used for longest go."""
VECTOR_LOOSE_BYTES: Final = 2 * 2**30
"""What a process may hold of the rows of a table that stand in no segment of its index."""
VECTOR_LOOSE_PERCENT: Final = 10
"""With more of a table's rows in no segment, and more than a delta has, a segment is made of them in the background."""
VECTOR_VIEWS: Final = 4
"""Versions of a table kept ready for searches, an index."""
VECTOR_JOURNAL_BYTES: Final = 64 * 2**20
"""A journal above this, and above its share of the snapshot, is put into a new snapshot in the background."""
VECTOR_JOURNAL_PERCENT: Final = 25
"""That share, of the snapshot's bytes."""
VECTOR_REPLAY_BYTES: Final = 64 * 2**20
"""Vectors of additions in a journal that are added at once when it is read."""
