"""Models behind one protocol, named ``provider/model``."""
