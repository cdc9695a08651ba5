"""The paths: each route reads as the life of its request, one call a stage."""
