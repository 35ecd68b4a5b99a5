"""How a server bears load."""
