"""Components of a profile: each turns the frames of a video into one artefact."""
