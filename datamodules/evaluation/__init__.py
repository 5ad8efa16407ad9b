"""What evaluations measure on: attack chunks, corruptions, shifts, biases, people."""
