"""From raw samples to batches: order, reading, cleaning, counting what cannot be read."""
