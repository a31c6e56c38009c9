"""The fast paths; their plain twins are in the tests."""
