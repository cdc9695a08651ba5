"""Many requests, one backbone: jobs, the scheduler that makes batches of them, who is seated, and the device thread.

No HTTP in here. ``engine.py`` is the way in.
"""
