"""Where the numbers of a run go: the run folder first, a tracking store from there."""
