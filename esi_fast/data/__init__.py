"""Shards of recordings on disk: written (`shards`), verified (`verify`) and loaded (`loader`).

`samples` makes what a shard stores of a record, `journal` lets a build be resumed, `shard_index` is
the format. `remote` loads shards that are streamed from URLs. Only `loader` and `remote` need
torch, so building shards starts without it.
"""
