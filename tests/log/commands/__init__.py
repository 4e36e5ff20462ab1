"""Commands: who may give them, and that each is carried out once."""
