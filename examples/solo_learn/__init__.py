"""solo-learn's own methods, watched and regularised by config keys alone."""
