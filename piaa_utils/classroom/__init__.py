"""For lecturers: a folder for the class, and grading what comes back. See notebooks/TEACHING.md."""
