"""The loop: observe, decide, record, act, report. All deciding is the planner's, all I/O the ports'."""
