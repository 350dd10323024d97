"""Parts that video transformers (DiT) share: outline, schedules, text, features, placing, the loaded model."""
