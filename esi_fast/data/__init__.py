"""Shards of recordings on disk: written (`shards`), verified (`verify`) and loaded (`loader`).

`samples` makes what a shard stores of a record, `journal` lets a build be resumed, `shard_index` is
the format. `augment` varies texts, `augment_signal` signals (with `signal_noise` and the generator
`draws`). Only the last three and `loader` need torch, so building shards starts without it.
"""
