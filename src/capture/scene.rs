//! `scene:` — a synthetic camera, drawn by the program.
