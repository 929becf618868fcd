"""What only a machine with an NVIDIA GPU can show: ``benchmarks/gpu.sh`` runs it (docs/gpu.md)."""
