"""Images made by a network: what a unit or a class answers to most strongly, and dreams."""
