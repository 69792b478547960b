"""Shards of recordings on disk: built, verified, merged, and loaded as batches.

Building: `settings` and `plan` say which record goes where, `samples` makes what a shard stores of
a record, `shard_writer` and `shard_job` write one shard, `workers` many at a time, `journal` lets
a build be resumed, and `shards` is the build. `estimate` foretells one, `merge` joins the parts of
one, `verify` checks one; `shard_index` is the format.

Loading: `shard_set` reads by row, `order` says which rows come when, `tokens` are the captions,
`loader` makes the batches; `augment` varies texts, `augment_signal` signals (with `signal_noise`
and the generator `draws`). `remote` streams shards from URLs (with `sample_stream` and
`tar_stream`). Only loading needs torch.
"""
