"""What synthetic rows have to pass before they are trained on: named filters, one a file, in one declared order.

`curate.py` asks them, `order.py` declares them, `filters.py` says what one is.
"""
