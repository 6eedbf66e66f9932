"""The five stages of an iteration, one a file: train, infer, judge, synthesize, curate."""
