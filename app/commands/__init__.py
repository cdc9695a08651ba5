"""The sub-commands of `tongues`, one file each."""
