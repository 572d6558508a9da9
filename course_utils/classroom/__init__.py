"""What makes pages of the lectures: for the classroom, and for the web."""
