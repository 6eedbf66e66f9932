"""What runs cost and when a local model pays back."""
