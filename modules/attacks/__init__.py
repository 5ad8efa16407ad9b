"""Adversarial attacks: PGD for training, threat models for evaluation."""
