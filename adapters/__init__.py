"""The method: a frozen backbone whose rows wear adapters. Knows no HTTP."""

__all__: list[str] = []
