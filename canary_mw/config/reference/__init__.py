"""What each attribute means, in words: for the reference page and for editors."""
