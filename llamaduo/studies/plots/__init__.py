"""Figures, a module a kind: functions from rows to a `Figure`, or to None where the rows show no such thing."""
