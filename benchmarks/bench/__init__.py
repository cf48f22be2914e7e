"""What every benchmark shares: alternating rounds, noise, references, one table."""
