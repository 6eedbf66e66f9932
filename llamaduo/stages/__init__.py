"""The stages of an iteration, one a file: train, infer, judge, synthesize; `curation/` is the fifth."""
