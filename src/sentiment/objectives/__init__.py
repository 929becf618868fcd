"""What is learned beside the labels: predictions that stay when words move, and are decided."""
