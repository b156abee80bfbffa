"""Settings to a trained model directory."""
