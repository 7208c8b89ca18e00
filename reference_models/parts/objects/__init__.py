"""Parts of models whose objects have a place: counts, windows, rectangles, who hides whom (AIR, SuPAIR)."""
