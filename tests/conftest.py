from hypothesis import settings

# Every run tries the same examples, however busy the machine is.
settings.register_profile("tongues", deadline=None, derandomize=True)
settings.load_profile("tongues")
