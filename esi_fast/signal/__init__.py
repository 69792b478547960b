"""ECG signals: read from disk, resampled, measured, checked, simulated. numpy, no torch."""
