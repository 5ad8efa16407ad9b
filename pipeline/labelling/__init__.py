"""What stage 2 writes, and exchange of labels."""
