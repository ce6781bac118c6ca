"""Features: waveforms, words and videos as arrays, for preparation and prediction."""
