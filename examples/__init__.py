"""Programs to read and to run: each file stands by itself. `recipes` are explained in docs/how-to/recipes."""
