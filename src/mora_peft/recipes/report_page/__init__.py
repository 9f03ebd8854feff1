"""The parts of the comparison page: its numbers, its headline, its charts, its templates."""
