"""mmnet: compose, train and compare image+text networks."""

__version__ = "0.1.0"
