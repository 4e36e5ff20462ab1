"""Who may call the server and what for: keys, tokens, and the limits of both."""
