"""Who serves the images: one file a survey behind one small interface."""
