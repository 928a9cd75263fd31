"""What is searched, and everything else that makes up a sweep; imports neither torch nor ray."""
