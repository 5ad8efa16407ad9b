"""Pictures and charts that reports, TensorBoard and README share."""
