"""ECGs and texts by likeness: nearest neighbours over the embeddings of a shard set.

`sources` gives recordings row by row, `embed` makes their embeddings in resumable `parts`;
`index` searches them and `storage` and `records` keep them on disk.
"""

from esi_fast.search.index import EcgHit, EcgIndex
from esi_fast.search.records import RecordFilter

__all__ = ["EcgHit", "EcgIndex", "RecordFilter"]
