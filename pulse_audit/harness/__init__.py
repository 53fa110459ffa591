"""The audit itself: specification, plan, work units and the run that carries them out."""
