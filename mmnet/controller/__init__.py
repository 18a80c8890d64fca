"""Controllers: they watch training and set the pace of the next step."""
