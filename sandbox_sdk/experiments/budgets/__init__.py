"""What experiments may spend: prices, reservations, and what is left."""
