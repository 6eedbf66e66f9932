"""What numbers mean: scorecards with intervals, and the rules that stop the loop."""
