"""Know, fetch and read what the papers' authors published for their learned methods."""
