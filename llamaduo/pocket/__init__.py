"""The embedded default: an offline teacher and judge, four tasks, three tiny base models."""
