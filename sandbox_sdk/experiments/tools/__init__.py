"""What a model may use: its tools, and what they are given and give."""
