"""How fast, next to what: every comparison in one run, on the same clips, in turn."""
