"""ECGs and texts by likeness: nearest neighbours over the embeddings of a shard set."""
