"""The planner's benchmark in parts: cases, both planners' runs, an independent judge, a lower bound."""
