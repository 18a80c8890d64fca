"""Meta-training: a policy for the double loop learns on many small runs, side by side."""
