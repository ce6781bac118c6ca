"""Training: sweeps of replicas over devices and processes, with checkpoints and a log."""
