"""Files that other tools read, made of a finished analysis: its npz artefacts stay as they are."""
