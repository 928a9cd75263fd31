"""The results folder: records, paths, the journal and its fold; imports neither torch nor ray."""
