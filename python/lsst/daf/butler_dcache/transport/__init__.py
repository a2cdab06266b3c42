"""The two planes on which requests travel, and what they share."""
