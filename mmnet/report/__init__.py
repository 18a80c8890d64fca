"""Pictures and pages made of what a run left in its folder."""
